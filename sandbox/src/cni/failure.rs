//! What the plug-in answers when it cannot do what it was asked: a code of the CNI specification and a sentence.
//! Every error of the crate that can reach a runtime has its code here.

use serde_json::{Value, json};

use super::request::Version;
use crate::attach::AttachError;
use crate::check::{CheckError, StatusError};
use crate::host_port::HostPortError;
use crate::namespace::NamespaceError;
use crate::netlink::NetlinkError;
use crate::range::RangeError;

/// An answer other than success.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    code: Code,
    message: String,
    details: String,
}

/// Codes below 100 are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    NotDecoded = 6,
    InvalidConfiguration = 7,
    TryAgain = 11,
    Unavailable = 50,
    Limited = 51,
    /// The kernel refused a step.
    Kernel = 100,
    /// ADD of what is attached already.
    Exists = 101,
    /// CHECK found something missing.
    Missing = 102,
    /// A hostPort is another pod's.
    Taken = 103,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    pub(super) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    pub(super) fn to_json(&self, version: Version) -> Value {
        json!({
            "cniVersion": version.as_str(),
            "code": self.code as u32,
            "msg": self.message,
            "details": self.details,
        })
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        let code = match &error {
            AttachError::Exists { .. } | AttachError::Occupied(_) => Code::Exists,
            AttachError::Range(RangeError::Full(_)) | AttachError::HostPort(HostPortError::NoMap(_)) => {
                Code::TryAgain
            }
            AttachError::HostPort(HostPortError::Taken { .. }) => Code::Taken,
            AttachError::HostPort(HostPortError::Family(_)) => Code::UnsupportedField,
            AttachError::HostPort(HostPortError::Map(_) | HostPortError::Netlink(_)) => Code::Kernel,
            AttachError::Range(RangeError::None) => Code::InvalidConfiguration,
            AttachError::Identity(_) => Code::InvalidEnvironment,
            AttachError::Namespace(error) => return namespace_failure(error),
            AttachError::Netlink(_) | AttachError::Map(_) | AttachError::Sysctl(_) => Code::Kernel,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match &error {
            CheckError::Namespace(error) => namespace_failure(error),
            CheckError::Netlink(_) | CheckError::Map(_) => Self::new(Code::Kernel, error.to_string()),
        }
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        let code = match &error {
            StatusError::Range(RangeError::Full(_)) | StatusError::Heartbeat => Code::Unavailable,
            StatusError::Programs => Code::Limited,
            StatusError::Range(RangeError::None) => Code::InvalidConfiguration,
            StatusError::Pins(_) | StatusError::Netlink(_) => Code::Kernel,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NetlinkError> for Failure {
    fn from(error: NetlinkError) -> Self {
        Self::new(Code::Kernel, error.to_string())
    }
}

impl From<NamespaceError> for Failure {
    fn from(error: NamespaceError) -> Self {
        namespace_failure(&error)
    }
}

fn namespace_failure(error: &NamespaceError) -> Failure {
    let code = match error {
        NamespaceError::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Code::UnknownContainer
        }
        NamespaceError::Open { .. } | NamespaceError::Enter(_) => Code::Kernel,
        NamespaceError::Other(_) => Code::InvalidEnvironment,
    };
    Failure::new(code, error.to_string())
}
