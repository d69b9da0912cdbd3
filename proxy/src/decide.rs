//! What a client gets that dials a frontend: R3 to R6 as one function of the tables. The hooks decide the same in
//! the kernel, a word and a window at a time; `explain` and the matrix of tests read it here. Pure.

use ebpf::backend::{CLUSTER, LOCAL};
use ebpf::frontend::FrontendWord;

use crate::tables::{Frontend, Slot, Tables, Target};

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod of this node: its sockets are translated when they connect.
    Pod,
    /// A process of this node itself, likewise.
    Node,
    /// Anybody else: packets that reach this node.
    Outside,
}

/// What the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is done: the connection goes where it is dialled.
    Untouched,
    /// The daemon of this node answers itself, and the endpoints only while it does not.
    Here,
    /// One of these endpoints; what it sees as the client.
    Balanced(Vec<Slot>, Source),
    /// No such port, or no endpoint at all: ECONNREFUSED, on the wire a reset or a port-unreachable (R4).
    Refused,
    /// Endpoints, but none that a Local policy allows: EHOSTUNREACH at a socket, silence on the wire (R4).
    Unreachable,
}

/// What an endpoint sees as the client (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client's own address.
    Kept,
    /// This node's address, so that answers come back this way.
    Node,
}

/// What `client` gets that dials `frontend`, where the source ranges of a load balancer let it (R13).
pub fn decide(tables: &Tables, frontend: &Frontend, client: Client) -> Decision {
    let target = tables.frontends.get(frontend);
    let target = target.or_else(|| tables.frontends.get(&Frontend::any_port(frontend.ip)));
    let (key, flags) = match target {
        None => return Decision::Untouched,
        Some(Target::Refuse) => return Decision::Refused,
        Some(Target::Service(key, flags)) => (key, *flags),
    };
    let has = |flag| flags & flag != 0;
    if has(FrontendWord::NODE_ONLY) && client != Client::Node {
        return Decision::Untouched;
    }
    if has(FrontendWord::HERE_FIRST) && client != Client::Outside {
        return Decision::Here;
    }
    let (is_local, source) = match client {
        // R5: the external policy is for clients outside; R6: a socket keeps its own address.
        Client::Pod | Client::Node => (has(FrontendWord::SOCKET_LOCAL), Source::Kept),
        Client::Outside => (has(FrontendWord::PACKET_LOCAL), source_outside(flags)),
    };
    let window = if is_local { LOCAL } else { CLUSTER };
    let slots = tables.services.get(key).map(|block| block.slots.as_slice()).unwrap_or_default();
    let allowed: Vec<Slot> = slots.iter().filter(|slot| slot.windows & window != 0).copied().collect();
    match (slots.is_empty(), allowed.is_empty()) {
        (true, _) => Decision::Refused,
        (false, true) => Decision::Unreachable,
        (false, false) => Decision::Balanced(allowed, source),
    }
}

/// Only external policy Local keeps a client outside: whoever dials a cluster IP from there is rewritten whatever
/// the internal policy, as answers could not come back otherwise.
const fn source_outside(flags: u16) -> Source {
    let is_local = flags & FrontendWord::PACKET_LOCAL != 0;
    let is_cluster_ip = flags & FrontendWord::SOCKET_LOCAL != 0;
    if is_local && !is_cluster_ip { Source::Kept } else { Source::Node }
}
