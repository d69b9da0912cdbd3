//! Map `stats`: PERCPU_ARRAY, reason -> how often. Every way out of a hook that is not "sent to a backend"
//! has its reason; connections opened are counted in each backend.

/// Why a hook did nothing, or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Reason {
    /// The address is no frontend.
    NoFrontend = 0,
    /// The daemon answers on this address itself.
    HereFirst = 1,
    /// A loopback frontend, seen from a pod.
    OtherNamespace = 2,
    /// The service word names no block.
    Unpublished = 3,
    /// A map did not hold what another one names.
    Inconsistent = 4,
    /// Refused: no endpoint.
    NoEndpoint = 5,
    /// Refused: the service has no such port.
    NoPort = 6,
    /// Unreachable: no endpoint that the Local policy allows.
    NoLocalEndpoint = 7,
    /// Sent to a backend, but the reverse record could not be stored.
    NotRecorded = 8,
    /// Passed: no IP, or inside an error no protocol with ports.
    NotIp = 9,
    /// Passed: lengths or a version that cannot be.
    Malformed = 10,
    /// Passed: IP options or extension headers, which are for the stack.
    Options = 11,
    /// Passed: a fragment whose first one was not seen.
    FragmentUnknown = 12,
    /// Refused: in the middle of a connection that is not known here.
    MidStream = 13,
    /// Dropped: from outside of the source ranges of the service.
    SourceRange = 14,
    /// Dropped: no port is free towards this backend.
    PortsExhausted = 15,
    /// The flow is known to both ends, but the map has no room to keep it.
    FlowsFull = 16,
    /// Dropped: the link has no address of the family to send from.
    NoAddress = 17,
    /// An ICMP error was translated.
    ErrorTranslated = 18,
    /// Held until the first fragment of its datagram comes.
    FragmentHeld = 19,
    /// A new flow, known to one end.
    FlowBegun = 20,
    /// A flow of which both ends have spoken.
    FlowKnown = 21,
    /// A flow that was known to one end, and makes room for one that begins anew or finds no other port.
    FlowOver = 22,
    /// A packet that was translated went on past the host's stack.
    Redirected = 23,
}

impl Reason {
    /// Every reason, by its index.
    pub const ALL: [Self; 24] = [
        Self::NoFrontend,
        Self::HereFirst,
        Self::OtherNamespace,
        Self::Unpublished,
        Self::Inconsistent,
        Self::NoEndpoint,
        Self::NoPort,
        Self::NoLocalEndpoint,
        Self::NotRecorded,
        Self::NotIp,
        Self::Malformed,
        Self::Options,
        Self::FragmentUnknown,
        Self::MidStream,
        Self::SourceRange,
        Self::PortsExhausted,
        Self::FlowsFull,
        Self::NoAddress,
        Self::ErrorTranslated,
        Self::FragmentHeld,
        Self::FlowBegun,
        Self::FlowKnown,
        Self::FlowOver,
        Self::Redirected,
    ];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoFrontend => "no_frontend",
            Self::HereFirst => "here_first",
            Self::OtherNamespace => "other_namespace",
            Self::Unpublished => "unpublished",
            Self::Inconsistent => "inconsistent",
            Self::NoEndpoint => "no_endpoint",
            Self::NoPort => "no_port",
            Self::NoLocalEndpoint => "no_local_endpoint",
            Self::NotRecorded => "not_recorded",
            Self::NotIp => "not_ip",
            Self::Malformed => "malformed",
            Self::Options => "options",
            Self::FragmentUnknown => "fragment_unknown",
            Self::MidStream => "mid_stream",
            Self::SourceRange => "source_range",
            Self::PortsExhausted => "ports_exhausted",
            Self::FlowsFull => "flows_full",
            Self::NoAddress => "no_address",
            Self::ErrorTranslated => "error_translated",
            Self::FragmentHeld => "fragment_held",
            Self::FlowBegun => "flow_begun",
            Self::FlowKnown => "flow_known",
            Self::FlowOver => "flow_over",
            Self::Redirected => "redirected",
        }
    }
}

/// Elements of `stats`: room for reasons to come.
pub const ELEMENTS: u32 = 32;
