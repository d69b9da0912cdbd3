//! The reducer: events in, snapshots out. The order in which objects arrive does not matter, a repeated
//! object changes nothing, and a relist leads to the same state as the single changes it stands for.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::endpoint::{EndpointSlice, Endpoints};
use crate::event::{Event, Kind, Object};
use crate::member::Member;
use crate::name::ObjectName;
use crate::service::Service;
use crate::snapshot::Snapshot;

/// The state of the cluster being built. One task owns it.
#[derive(Debug, Default)]
pub struct Cluster {
    /// What has been built, but for the members of `touched`.
    current: Snapshot,
    /// The last snapshot handed out.
    published: Arc<Snapshot>,
    services: HashMap<ObjectName, Arc<Service>>,
    slices: HashMap<ObjectName, Arc<EndpointSlice>>,
    /// The slices of each service in order of their names, whether or not the service exists yet.
    by_service: HashMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    /// The names of the slices that each legacy Endpoints object stands for.
    endpoints: HashMap<ObjectName, Vec<ObjectName>>,
    /// The services whose member must be built anew.
    touched: HashSet<ObjectName>,
}

impl Cluster {
    /// A cluster of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one change.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Apply(object) => self.put(object),
            Event::Delete(kind, name) => self.remove(kind, &name),
            Event::Replace(kind, objects) => self.replace(kind, objects),
        }
    }

    /// The view of everything applied so far: the same one as before if nothing differs. The cost is that of
    /// what changed since the last call.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        for name in self.touched.drain().collect::<Vec<_>>() {
            self.refresh(&name);
        }
        if self.current != *self.published {
            self.current.generation += 1;
            self.published = Arc::new(self.current.clone());
        }
        Arc::clone(&self.published)
    }

    fn put(&mut self, object: Object) {
        match object {
            Object::Service(service) => self.put_service(service),
            Object::EndpointSlice(slice) => self.put_slice(slice),
            Object::Endpoints(endpoints) => self.put_endpoints(&endpoints),
            Object::Namespace(name) => {
                self.current.namespaces.insert(name);
            }
            Object::Node(node) => {
                self.current.nodes.insert(node.name.clone(), Arc::new(node));
            }
            Object::Pod(pod) => {
                self.current.pods.insert(pod.name.clone(), Arc::new(pod));
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::Service => {
                self.services.remove(name);
                self.touched.insert(name.clone());
            }
            Kind::EndpointSlice => self.remove_slice(name),
            Kind::Endpoints => self.remove_endpoints(name),
            Kind::Namespace => {
                self.current.namespaces.remove(&name.name);
            }
            Kind::Node => {
                self.current.nodes.remove(&name.name);
            }
            Kind::Pod => {
                self.current.pods.remove(name);
            }
        }
    }

    /// R10: what the list lacks is gone; what it has is applied as a difference.
    fn replace(&mut self, kind: Kind, objects: Vec<Object>) {
        let known = self.names(kind);
        if !known.is_empty() {
            let kept: HashSet<ObjectName> = objects.iter().map(Object::name).collect();
            for name in known.iter().filter(|name| !kept.contains(name)) {
                self.remove(kind, name);
            }
        }
        for object in objects {
            debug_assert_eq!(object.kind(), kind, "a list holds one kind");
            self.put(object);
        }
        self.current.listed.insert(kind);
    }

    fn names(&self, kind: Kind) -> Vec<ObjectName> {
        match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().filter(|name| !is_legacy(name)).cloned().collect(),
            Kind::Endpoints => self.endpoints.keys().cloned().collect(),
            Kind::Namespace => {
                self.current.namespaces.iter().cloned().map(ObjectName::cluster_scoped).collect()
            }
            Kind::Node => self.current.nodes.keys().cloned().map(ObjectName::cluster_scoped).collect(),
            Kind::Pod => self.current.pods.keys().cloned().collect(),
        }
    }

    fn put_service(&mut self, service: Service) {
        if self.services.get(&service.name).is_some_and(|known| **known == service) {
            return;
        }
        self.touched.insert(service.name.clone());
        self.services.insert(service.name.clone(), Arc::new(service));
    }

    fn put_slice(&mut self, slice: EndpointSlice) {
        if self.slices.get(&slice.name).is_some_and(|known| **known == slice) {
            return;
        }
        // The label may have moved it from one service to another.
        self.remove_slice(&slice.name);
        let service = service_of(&slice);
        let slice = Arc::new(slice);
        let siblings = self.by_service.entry(service.clone()).or_default();
        let at = siblings.partition_point(|sibling| sibling.name < slice.name);
        // Most services have one slice for as long as they live.
        siblings.reserve_exact(1);
        siblings.insert(at, Arc::clone(&slice));
        self.slices.insert(slice.name.clone(), slice);
        self.touched.insert(service);
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else { return };
        let service = service_of(&slice);
        if let Some(siblings) = self.by_service.get_mut(&service) {
            siblings.retain(|sibling| sibling.name != *name);
            if siblings.is_empty() {
                self.by_service.remove(&service);
            }
        }
        self.touched.insert(service);
    }

    fn put_endpoints(&mut self, endpoints: &Endpoints) {
        let slices = endpoints.slices();
        let names: Vec<ObjectName> = slices.iter().map(|slice| slice.name.clone()).collect();
        let before = self.endpoints.insert(endpoints.name.clone(), names).unwrap_or_default();
        for surplus in before.iter().skip(slices.len()) {
            self.remove_slice(surplus);
        }
        for slice in slices {
            self.put_slice(slice);
        }
    }

    fn remove_endpoints(&mut self, name: &ObjectName) {
        for slice in self.endpoints.remove(name).unwrap_or_default() {
            self.remove_slice(&slice);
        }
    }

    fn refresh(&mut self, name: &ObjectName) {
        let Some(service) = self.services.get(name) else {
            self.current.services.remove(name);
            return;
        };
        let slices = self.by_service.get(name).cloned().unwrap_or_default();
        let member = Member { service: Arc::clone(service), slices };
        self.current.services.insert(name.clone(), Arc::new(member));
    }
}

fn service_of(slice: &EndpointSlice) -> ObjectName {
    ObjectName::new(slice.name.namespace.clone(), slice.service.clone())
}

fn is_legacy(slice: &ObjectName) -> bool {
    slice.name.contains(':')
}
