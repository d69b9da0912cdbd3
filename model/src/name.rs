//! Names of API objects. Cheap to clone, ordered as text, so that every dump is stable. They are never checked
//! here: a source takes only names that the API allows.

use std::fmt;
use std::sync::Arc;

/// One name: a namespace, a port name, a node name. The empty name is a name too ("" is the unnamed port).
pub type Name = Arc<str>;

/// The namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace, or "" where the kind has none.
    pub namespace: Name,
    /// The name within the namespace.
    pub name: Name,
}

impl ObjectName {
    /// A name inside a namespace.
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name of a Node or a Namespace.
    pub fn cluster_scoped(name: impl Into<Name>) -> Self {
        Self::new("", name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
