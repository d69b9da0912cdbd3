//! Which endpoints of a service port are used, and why each is in or out (R1, R2). Called by the planner for
//! every service port, and by `explain` for one.

use model::PortEndpoint;

/// An endpoint with where it stands in each window.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    /// The endpoint.
    pub endpoint: PortEndpoint<'a>,
    /// Its standing in the cluster window.
    pub cluster: Standing,
    /// Its standing in the local window.
    pub local: Standing,
}

/// Why an endpoint is in a window or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In: it is ready.
    Ready,
    /// In: none is ready, and it still serves while it terminates.
    Fallback,
    /// Out: not ready, and not a terminating one that still serves.
    NotReady,
    /// Out: it terminates, and others are ready.
    Terminating,
    /// Out of the local window: on another node.
    OtherNode,
    /// Out of the cluster window: hinted to another zone or node (R2).
    HintedElsewhere,
}

impl Standing {
    /// Whether the endpoint is used.
    pub const fn is_in(self) -> bool {
        matches!(self, Self::Ready | Self::Fallback)
    }

    /// The standing as a phrase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "in: ready",
            Self::Fallback => "in: terminating but serving, and none is ready",
            Self::NotReady => "out: not ready",
            Self::Terminating => "out: terminating, and others are ready",
            Self::OtherNode => "out: on another node",
            Self::HintedElsewhere => "out: hinted to another zone or node",
        }
    }
}

/// Where each endpoint stands. `node` and `zone` are those of this node; the endpoints say themselves
/// whether they are local.
pub fn select<'a>(endpoints: &[PortEndpoint<'a>], node: &str, zone: Option<&str>) -> Vec<Selected<'a>> {
    let topology = Topology::of(endpoints, node, zone);
    let any = |wanted: &dyn Fn(&PortEndpoint<'_>) -> bool| endpoints.iter().any(wanted);
    let cluster_ready = any(&|endpoint| endpoint.conditions.ready && topology.allows(endpoint, node, zone));
    let local_ready = any(&|endpoint| endpoint.conditions.ready && endpoint.local);
    let standings = |endpoint: PortEndpoint<'a>| Selected {
        endpoint,
        // R2 and R1: topology looks at ready endpoints, and is ignored where none is left.
        cluster: if endpoint.conditions.ready && !topology.allows(&endpoint, node, zone) {
            Standing::HintedElsewhere
        } else {
            standing(&endpoint, cluster_ready)
        },
        local: if endpoint.local { standing(&endpoint, local_ready) } else { Standing::OtherNode },
    };
    endpoints.iter().copied().map(standings).collect()
}

fn standing(endpoint: &PortEndpoint<'_>, any_ready: bool) -> Standing {
    let conditions = endpoint.conditions;
    match (conditions.ready, conditions.is_fallback(), any_ready) {
        (true, _, _) => Standing::Ready,
        (false, true, false) => Standing::Fallback,
        (false, true, true) => Standing::Terminating,
        (false, false, _) => Standing::NotReady,
    }
}

/// R2: which hints count, by what the ready endpoints carry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    None,
    Zone,
    Node,
}

impl Topology {
    fn of(endpoints: &[PortEndpoint<'_>], node: &str, zone: Option<&str>) -> Self {
        let ready = || endpoints.iter().filter(|endpoint| endpoint.conditions.ready);
        let fits = |mode: Self, hinted: &dyn Fn(&PortEndpoint<'_>) -> bool| {
            ready().all(hinted) && ready().any(|endpoint| mode.allows(endpoint, node, zone))
        };
        if fits(Self::Node, &|endpoint| hints(endpoint).is_some_and(|hints| !hints.nodes.is_empty())) {
            return Self::Node;
        }
        let has_zone = zone.is_some_and(|zone| !zone.is_empty());
        if has_zone
            && fits(Self::Zone, &|endpoint| hints(endpoint).is_some_and(|hints| !hints.zones.is_empty()))
        {
            return Self::Zone;
        }
        Self::None
    }

    fn allows(self, endpoint: &PortEndpoint<'_>, node: &str, zone: Option<&str>) -> bool {
        match self {
            Self::None => true,
            Self::Zone => {
                hints(endpoint).is_some_and(|hints| hints.zones.iter().any(|name| Some(&**name) == zone))
            }
            Self::Node => hints(endpoint).is_some_and(|hints| hints.nodes.iter().any(|name| &**name == node)),
        }
    }
}

fn hints<'a>(endpoint: &PortEndpoint<'a>) -> Option<&'a model::Hints> {
    endpoint.endpoint.hints.as_deref()
}
