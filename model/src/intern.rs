//! One copy of what many objects have: the names of namespaces, services and ports, and the places where
//! endpoints run. A source shares what it converts, so that 100,000 endpoints on 1,000 nodes hold 1,000 places.

use std::hash::Hash;
use std::sync::Arc;

use foldhash::HashSet;

use crate::endpoint::{EndpointSlice, Location};
use crate::event::Object;

/// Below so many values nothing is swept.
const SWEPT_FROM: usize = 1024;

/// What has been seen. It forgets what nobody else holds any more.
#[derive(Debug, Default)]
pub struct Interner {
    names: Shared<str>,
    locations: Shared<Location>,
}

impl Interner {
    /// Puts the shared copy of each repeated value in place.
    pub fn share(&mut self, object: &mut Object) {
        match object {
            Object::Service(service) => {
                self.names.share(&mut service.name.namespace);
                service.ports.iter_mut().for_each(|port| self.names.share(&mut port.name));
            }
            Object::EndpointSlice(slice) => self.slice(slice),
            Object::Endpoints(_) | Object::Namespace(_) | Object::Node(_) | Object::Pod(_) => {}
        }
    }

    fn slice(&mut self, slice: &mut EndpointSlice) {
        self.names.share(&mut slice.name.namespace);
        slice.ports.iter_mut().for_each(|port| self.names.share(&mut port.name));
        let locations = slice.endpoints.iter_mut().filter_map(|endpoint| endpoint.location.as_mut());
        locations.for_each(|location| self.locations.share(location));
    }
}

/// One copy of each value.
#[derive(Debug)]
struct Shared<T: ?Sized> {
    known: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: Hash + Eq + ?Sized> Shared<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.known.get(&**value) {
            *value = Arc::clone(known);
            return;
        }
        if self.known.len() >= self.sweep_at.max(SWEPT_FROM) {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = 2 * self.known.len();
        }
        self.known.insert(Arc::clone(value));
    }
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { known: HashSet::default(), sweep_at: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    #[test]
    fn equal_names_become_one_and_unused_ones_are_forgotten() {
        let mut names = Shared::<str>::default();
        let (mut one, mut two): (Name, Name) = ("node-a".into(), "node-a".into());
        names.share(&mut one);
        names.share(&mut two);
        assert!(Arc::ptr_eq(&one, &two));
        for n in 0..10 * SWEPT_FROM {
            names.share(&mut format!("node-{n}").into());
        }
        assert!(names.known.len() <= 2 * SWEPT_FROM, "{} are kept", names.known.len());
        assert!(names.known.contains("node-a"));
    }
}
