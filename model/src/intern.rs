//! One copy of each name that many objects have: nodes, zones, namespaces, services, ports. A source shares the
//! names of what it converts, so that 100,000 endpoints on 1,000 nodes hold 1,000 names of nodes.

use std::collections::HashSet;
use std::sync::Arc;

use crate::event::Object;
use crate::name::Name;

/// Below so many names nothing is swept.
const SWEPT_FROM: usize = 1024;

/// The names seen. It forgets those that nobody else holds any more.
#[derive(Debug, Default)]
pub struct Interner {
    names: HashSet<Name>,
    sweep_at: usize,
}

impl Interner {
    /// Puts the shared copy of each repeated name in place.
    pub fn share(&mut self, object: &mut Object) {
        match object {
            Object::Service(service) => {
                self.name(&mut service.name.namespace);
                service.ports.iter_mut().for_each(|port| self.name(&mut port.name));
            }
            Object::EndpointSlice(slice) => {
                self.name(&mut slice.name.namespace);
                slice.ports.iter_mut().for_each(|port| self.name(&mut port.name));
                for endpoint in &mut slice.endpoints {
                    let namespace = endpoint.pod.as_mut().map(|pod| &mut pod.namespace);
                    let names = [endpoint.node.as_mut(), endpoint.zone.as_mut(), namespace];
                    names.into_iter().flatten().for_each(|name| self.name(name));
                }
            }
            Object::Endpoints(_) | Object::Namespace(_) | Object::Node(_) | Object::Pod(_) => {}
        }
    }

    fn name(&mut self, name: &mut Name) {
        if let Some(known) = self.names.get(&**name) {
            *name = Arc::clone(known);
            return;
        }
        if self.names.len() >= self.sweep_at.max(SWEPT_FROM) {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = 2 * self.names.len();
        }
        self.names.insert(Arc::clone(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_become_one_and_unused_ones_are_forgotten() {
        let mut interner = Interner::default();
        let (mut one, mut two): (Name, Name) = ("node-a".into(), "node-a".into());
        interner.name(&mut one);
        interner.name(&mut two);
        assert!(Arc::ptr_eq(&one, &two));
        for n in 0..10 * SWEPT_FROM {
            interner.name(&mut format!("node-{n}").into());
        }
        assert!(interner.names.len() <= 2 * SWEPT_FROM, "{} are kept", interner.names.len());
        assert!(interner.names.contains("node-a"));
    }
}
