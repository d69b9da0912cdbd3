//! The immutable view of the cluster that every consumer plans from. Cloning one is O(1), and the
//! difference of two costs what changed between them, so consumers may skip any number of snapshots.

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

use crate::event::Kind;
use crate::member::Member;
use crate::name::{Name, ObjectName};
use crate::node::{Node, Pod};

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Grows with every snapshot that differs from the one before.
    pub generation: u64,
    /// Every Service with its endpoints.
    pub services: OrdMap<ObjectName, Arc<Member>>,
    /// The namespaces that exist.
    pub namespaces: OrdSet<Name>,
    /// The nodes that are watched: at least this one.
    pub nodes: OrdMap<Name, Arc<Node>>,
    /// The pods that are watched: at least those of this node.
    pub pods: OrdMap<ObjectName, Arc<Pod>>,
    /// Which lists are complete.
    pub listed: Listed,
}

/// The kinds whose first list is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed(u8);

/// One service that differs between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// Its name.
    pub name: &'a ObjectName,
    /// What it was; None if it is new.
    pub old: Option<&'a Arc<Member>>,
    /// What it is; None if it is gone.
    pub new: Option<&'a Arc<Member>>,
}

impl Snapshot {
    /// The services that differ from `older`, in order of their names.
    pub fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = Changed<'a>> {
        older.services.diff(&self.services).map(|item| match item {
            DiffItem::Add(name, new) => Changed { name, old: None, new: Some(new) },
            DiffItem::Update { old: (_, old), new: (name, new) } => {
                Changed { name, old: Some(old), new: Some(new) }
            }
            DiffItem::Remove(name, old) => Changed { name, old: Some(old), new: None },
        })
    }

    /// R10: Services, EndpointSlices and Nodes have been listed, so absence means absence and the data plane
    /// may be touched.
    pub fn is_complete(&self) -> bool {
        [Kind::Service, Kind::EndpointSlice, Kind::Node].into_iter().all(|kind| self.listed.contains(kind))
    }
}

impl Listed {
    /// Whether the first list of `kind` is complete.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Marks the list of `kind` as complete.
    pub const fn insert(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }
}
