//! From the API's types to the model's values, for both sources: the one place where an object is judged.
//!
//! The API's types say anything, the model's cannot say what is wrong, so a conversion either succeeds or
//! names the object, the field and what is wrong with it. An object is taken whole or not at all, as the API
//! server would; only what R11 says to skip is skipped. Pure. Called by `kube/` and by `manifests/`.

mod endpoints;
mod node;
mod service;
mod value;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::{Kind, ObjectName};

pub use endpoints::{endpoint_slice, endpoints};
pub use node::{namespace, node, pod};
pub use service::service;
pub(crate) use value::{dns_label, dns_name, ip, net, port};

/// An object that cannot be taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {name}: {fault}", kind.as_str())]
pub struct BadObject {
    /// The kind of the object.
    pub kind: Kind,
    /// Its name, as far as it has one.
    pub name: ObjectName,
    /// What is wrong.
    pub fault: Fault,
}

/// A field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}")]
pub struct Fault {
    /// Path of the field, as `kubectl explain` writes it, with indices.
    pub field: String,
    /// What is wrong with its value.
    pub wrong: Wrong,
}

/// What can be wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A number that is not a port.
    #[error("{0} is not a port (1 to 65535)")]
    Port(i32),
    /// A text that is not an address.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// An address that leads nowhere else.
    #[error("{0} is unspecified, loopback or link-local")]
    Special(std::net::IpAddr),
    /// An address of the other family than its surroundings say.
    #[error("{0} is not an {1} address")]
    Family(std::net::IpAddr, &'static str),
    /// A text that is not a range of addresses.
    #[error("{0:?} is not a CIDR")]
    Net(String),
    /// A text that cannot be a name.
    #[error("{0:?} is not a DNS label (lower-case letters, digits and -, at most 63)")]
    Label(String),
    /// A text that cannot be a name of several labels.
    #[error("{0:?} is not a DNS name")]
    Dns(String),
    /// A word that the API does not know here.
    #[error("{found:?} is none of {known}")]
    Word {
        /// What is written.
        found: String,
        /// What could be written.
        known: &'static str,
    },
    /// An affinity timeout out of range.
    #[error("{0} is not a timeout (1 to 86400 seconds)")]
    Timeout(i32),
    /// Nothing, where something must be.
    #[error("is missing")]
    Missing,
    /// The same value as an earlier item.
    #[error("{0} is there twice")]
    Twice(String),
    /// Two fields that exclude one another.
    #[error("{0}")]
    Clash(&'static str),
}

impl Wrong {
    /// This, in `field`.
    pub(crate) fn at(self, field: impl Into<String>) -> Fault {
        Fault { field: field.into(), wrong: self }
    }
}

impl Fault {
    /// This, in the object of `kind` that `metadata` names.
    fn of(self, kind: Kind, metadata: &ObjectMeta) -> BadObject {
        let name = metadata.name.as_deref().unwrap_or("(without a name)");
        let name = match metadata.namespace.as_deref() {
            Some(namespace) => ObjectName::new(namespace, name),
            None if is_namespaced(kind) => ObjectName::new("default", name),
            None => ObjectName::cluster_scoped(name),
        };
        BadObject { kind, name, fault: self }
    }
}

/// Whether objects of `kind` live in a namespace.
pub(crate) const fn is_namespaced(kind: Kind) -> bool {
    match kind {
        Kind::Service | Kind::EndpointSlice | Kind::Endpoints | Kind::Pod => true,
        Kind::Namespace | Kind::Node => false,
    }
}

/// The checked name of a namespaced object; a namespace that is not written is `default`.
fn object_name(metadata: &ObjectMeta) -> Result<ObjectName, Fault> {
    let name = metadata.name.as_deref().ok_or(Wrong::Missing.at("metadata.name"))?;
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    dns_label(namespace).map_err(|wrong| wrong.at("metadata.namespace"))?;
    dns_name(name).map_err(|wrong| wrong.at("metadata.name"))?;
    Ok(ObjectName::new(namespace, name))
}

/// The checked name of an object without a namespace.
fn cluster_name(metadata: &ObjectMeta) -> Result<model::Name, Fault> {
    let name = metadata.name.as_deref().ok_or(Wrong::Missing.at("metadata.name"))?;
    dns_name(name).map_err(|wrong| wrong.at("metadata.name"))?;
    Ok(name.into())
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests;
