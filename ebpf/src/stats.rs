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
}

impl Reason {
    /// Every reason, by its index.
    pub const ALL: [Self; 9] = [
        Self::NoFrontend,
        Self::HereFirst,
        Self::OtherNamespace,
        Self::Unpublished,
        Self::Inconsistent,
        Self::NoEndpoint,
        Self::NoPort,
        Self::NoLocalEndpoint,
        Self::NotRecorded,
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
        }
    }
}

/// Elements of `stats`: room for reasons to come.
pub const ELEMENTS: u32 = 32;
