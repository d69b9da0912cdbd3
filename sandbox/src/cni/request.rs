//! What a container runtime asks for: the environment and the network configuration on standard input. Keys are
//! matched whatever their case: runtimes differ.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::failure::{Code, Failure};
use crate::detach::Identity;
use crate::host_port::{HostPort, HostProtocol};
use crate::record::PodId;

/// The kernel's limit for the name of a link, without its final zero.
const IFNAME_LENGTH: usize = 15;

/// What `CNI_COMMAND` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Delete,
    Check,
    Collect,
    Status,
    Version,
}

/// The versions of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

/// The environment, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) container_id: String,
    pub(super) ifname: String,
    /// Empty where DEL has none.
    pub(super) netns: String,
    pub(super) pod: Option<PodId>,
}

/// The network configuration.
#[derive(Debug)]
pub(super) struct Config(Map<String, Value>);

/// What a person sees who starts the program by hand.
pub(super) fn about() -> String {
    let versions: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
    format!(
        "fairway-cni {}: the CNI plug-in of Fairway, for container runtimes (set CNI_COMMAND)\nCNI versions: {}",
        env!("CARGO_PKG_VERSION"),
        versions.join(", ")
    )
}

impl Command {
    const ALL: [Self; 6] = [Self::Add, Self::Delete, Self::Check, Self::Collect, Self::Status, Self::Version];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Delete => "DEL",
            Self::Check => "CHECK",
            Self::Collect => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Delete => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Collect | Self::Status => &["CNI_PATH"],
            Self::Version => &[],
        }
    }
}

impl Version {
    pub(super) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub(super) const LATEST: Self = Self::V1_1_0;

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl Request {
    /// Reads the environment, where an empty variable is none.
    pub(super) fn read(variable: impl Fn(&str) -> String) -> Result<Self, Failure> {
        let invalid = |message: String| Failure::new(Code::InvalidEnvironment, message);
        let asked = variable("CNI_COMMAND");
        let command = Command::ALL.into_iter().find(|command| command.as_str() == asked);
        let command = command.ok_or_else(|| invalid(format!("unknown CNI_COMMAND: {asked}")))?;
        let missing: Vec<_> =
            command.required().iter().filter(|name| variable(name).is_empty()).copied().collect();
        if !missing.is_empty() {
            return Err(invalid(format!("required environment variables missing: {}", missing.join(", "))));
        }
        let request = Self {
            command,
            container_id: variable("CNI_CONTAINERID"),
            ifname: variable("CNI_IFNAME"),
            netns: variable("CNI_NETNS"),
            pod: pod(&variable("CNI_ARGS")).map_err(invalid)?,
        };
        if command.required().contains(&"CNI_IFNAME") {
            if !is_container_id(&request.container_id) {
                return Err(invalid(format!("CNI_CONTAINERID {:?} is not an id", request.container_id)));
            }
            if !is_ifname(&request.ifname) {
                return Err(invalid(format!("CNI_IFNAME {:?} is not a name of a link", request.ifname)));
            }
        }
        Ok(request)
    }
}

/// The pod of `CNI_ARGS`, which is `KEY=VALUE;KEY=VALUE`. Runtimes other than Kubernetes' name none.
fn pod(arguments: &str) -> Result<Option<PodId>, String> {
    let (mut namespace, mut name) = (None, None);
    for argument in arguments.split(';').filter(|argument| !argument.is_empty()) {
        let (key, value) =
            argument.split_once('=').ok_or_else(|| format!("CNI_ARGS: {argument:?} is not KEY=VALUE"))?;
        match key {
            "K8S_POD_NAMESPACE" => namespace = Some(value),
            "K8S_POD_NAME" => name = Some(value),
            _ => {}
        }
    }
    let (Some(namespace), Some(name)) = (namespace, name) else { return Ok(None) };
    format!("{namespace}/{name}").parse().map(Some).map_err(|error| format!("CNI_ARGS: {error}"))
}

/// As the specification has it.
fn is_container_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && id.bytes().all(is_allowed)
}

/// As the kernel has it, and printable.
fn is_ifname(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    name.len() <= IFNAME_LENGTH && ![".", ".."].contains(&name) && name.bytes().all(is_allowed)
}

impl Config {
    /// Reads standard input. VERSION may come without.
    pub(super) fn read(input: &[u8], command: Command) -> Result<Self, Failure> {
        if command == Command::Version && input.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        serde_json::from_slice(input).map(Self).map_err(|error| {
            Failure::new(Code::NotDecoded, format!("the network configuration is not understood: {error}"))
        })
    }

    /// `cniVersion`; without one it is the first that had none, which VERSION alone takes.
    pub(super) fn version(&self) -> Result<Version, Failure> {
        let asked = match self.field("cniVersion") {
            None if self.0.is_empty() => return Ok(Version::LATEST),
            None => "0.1.0",
            Some(value) => text(value, "cniVersion")?,
        };
        Version::ALL.into_iter().find(|version| version.as_str() == asked).ok_or_else(|| {
            let supported: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
            Failure::new(Code::IncompatibleVersion, format!("incompatible CNI version: {asked}"))
                .with_details(format!("supported: {}", supported.join(", ")))
        })
    }

    /// `type`: which plug-in is meant.
    pub(super) fn kind(&self) -> &str {
        self.field("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// `podCidrs`: where addresses are taken from.
    pub(super) fn pod_cidrs(&self) -> Result<Vec<IpNet>, Failure> {
        let mut ranges = Vec::new();
        for value in list(self.field("podCidrs"), "podCidrs")? {
            let range = text(value, "podCidrs")?;
            ranges.push(range.parse().map_err(|_| wrong("podCidrs", value, "ranges such as 10.1.0.0/24"))?);
        }
        Ok(ranges)
    }

    /// `mtu`; None for that of the node's uplink.
    pub(super) fn mtu(&self) -> Result<Option<u32>, Failure> {
        let Some(value) = self.field("mtu") else { return Ok(None) };
        let mtu = value.as_u64().and_then(|mtu| u32::try_from(mtu).ok());
        let mtu = mtu.ok_or_else(|| wrong("mtu", value, "a number of bytes"))?;
        Ok(Some(mtu).filter(|mtu| *mtu != 0))
    }

    /// `bpfDir`: where the daemon pins its maps and programs; None where there are none.
    pub(super) fn bpf_dir(&self) -> Result<Option<PathBuf>, Failure> {
        let directory = self.field("bpfDir").map(|value| text(value, "bpfDir")).transpose()?;
        Ok(directory.filter(|directory| !directory.is_empty()).map(PathBuf::from))
    }

    /// What GC is to spare. libcni writes two keys, for plug-ins of either draft: what any of them names stays.
    pub(super) fn valid_attachments(&self) -> Result<BTreeSet<Identity>, Failure> {
        const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let lists: Vec<_> = KEYS.iter().filter_map(|key| Some((*key, self.field(key)?))).collect();
        if lists.is_empty() {
            // Nothing said is not "none is valid".
            let message = format!("{} is missing", KEYS[0]);
            return Err(Failure::new(Code::InvalidConfiguration, message));
        }
        let mut valid = BTreeSet::new();
        for (key, value) in lists {
            for entry in list(Some(value), key)? {
                let object = entry.as_object();
                let word = |name| object.and_then(|object| field(object, name)).and_then(Value::as_str);
                let (Some(id), Some(ifname)) = (word("containerID"), word("ifname")) else {
                    return Err(wrong(key, entry, "objects with containerID and ifname"));
                };
                valid.insert((id.to_owned(), ifname.to_owned()));
            }
        }
        Ok(valid)
    }

    /// The addresses of `prevResult`.
    pub(super) fn previous_addresses(&self) -> Result<BTreeSet<IpAddr>, Failure> {
        let missing = || Failure::new(Code::InvalidConfiguration, "CHECK needs prevResult");
        let result = self.field("prevResult").and_then(Value::as_object).ok_or_else(missing)?;
        let mut addresses = BTreeSet::new();
        for entry in list(field(result, "ips"), "prevResult.ips")? {
            let address = entry.as_object().and_then(|entry| field(entry, "address")).and_then(Value::as_str);
            let address = address.and_then(|address| address.parse::<IpNet>().ok());
            let address = address.ok_or_else(|| wrong("prevResult.ips", entry, "addresses"))?;
            addresses.insert(address.addr());
        }
        Ok(addresses)
    }

    /// `runtimeConfig.portMappings`: the ports of the node that lead to the pod.
    pub(super) fn host_ports(&self) -> Result<Vec<HostPort>, Failure> {
        let runtime = self.field("runtimeConfig").and_then(Value::as_object);
        let mappings = list(runtime.and_then(|runtime| field(runtime, "portMappings")), "portMappings")?;
        let ports = mappings.iter().map(|mapping| {
            let wanted = "objects with hostPort, containerPort, protocol and hostIP";
            host_port(mapping).ok_or_else(|| wrong("portMappings", mapping, wanted))
        });
        Ok(ports.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn field(&self, name: &str) -> Option<&Value> {
        field(&self.0, name)
    }
}

/// None if it is not understood; Some(None) if it leads nowhere. SCTP does not reach the hooks: better a pod without
/// that port than none.
fn host_port(mapping: &Value) -> Option<Option<HostPort>> {
    let mapping = mapping.as_object()?;
    let number = |name| match field(mapping, name) {
        None => Some(0),
        Some(value) => value.as_u64().and_then(|port| u16::try_from(port).ok()),
    };
    let text = |name| field(mapping, name).map_or(Some(""), Value::as_str);
    let (port, container_port) = (number("hostPort")?, number("containerPort")?);
    let address = match text("hostIP")? {
        "" => None,
        address => Some(address.parse().ok()?),
    };
    let protocol = match text("protocol")? {
        "" => Some(HostProtocol::Tcp),
        sctp if sctp.eq_ignore_ascii_case("SCTP") => {
            tracing::warn!(port, "a hostPort of protocol SCTP does not lead to the pod");
            None
        }
        name => Some(HostProtocol::of(name)?),
    };
    if port == 0 {
        return Some(None);
    }
    (container_port != 0)
        .then(|| protocol.map(|protocol| HostPort { address, port, protocol, container_port }))
}

/// A field by its name, exact or in another case. Null is none.
fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let other_case = || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    object.get(name).or_else(other_case).filter(|value| !value.is_null())
}

fn list<'a>(value: Option<&'a Value>, name: &str) -> Result<&'a [Value], Failure> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(other) => Err(wrong(name, other, "a list")),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Failure> {
    value.as_str().ok_or_else(|| wrong(name, value, "text"))
}

fn wrong(name: &str, found: &Value, wanted: &str) -> Failure {
    Failure::new(Code::InvalidConfiguration, format!("{name}: {found} is not {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::read(text.as_bytes(), Command::Add).unwrap()
    }

    #[test]
    fn keys_match_in_any_case_the_exact_one_first() {
        let read = config(r#"{"MTU": 1, "mtu": 2, "PODCIDRS": ["10.1.0.0/24"], "bpfdir": "/b"}"#);
        assert_eq!(read.mtu().unwrap(), Some(2));
        assert_eq!(read.pod_cidrs().unwrap(), ["10.1.0.0/24".parse().unwrap()]);
        assert_eq!(read.bpf_dir().unwrap(), Some("/b".into()));
        let read = config(r#"{"mtu": 0, "bpfDir": null}"#);
        assert_eq!((read.mtu().unwrap(), read.bpf_dir().unwrap()), (None, None));
    }

    #[test]
    fn host_ports_are_read_in_any_case() {
        let read = |mapping: &str| {
            let text = format!(r#"{{"runtimeConfig": {{"portMappings": [{mapping}]}}}}"#);
            let ports = config(&text).host_ports().map_err(|failure| failure.to_json(Version::LATEST));
            ports.map(|ports| ports.iter().map(|port| format!("{port} to {}", port.container_port)).collect())
        };
        let none: Result<Vec<String>, Value> = Ok(Vec::new());
        let one = |text: &str| Ok(vec![text.to_owned()]);
        assert_eq!(read(r#"{"hostPort": 8080, "containerPort": 80}"#), one("8080/TCP to 80"));
        let containerd =
            r#"{"HostPort": 53, "ContainerPort": 5353, "Protocol": "udp", "HostIP": "192.0.2.7"}"#;
        assert_eq!(read(containerd), one("192.0.2.7:53/UDP to 5353"));
        assert_eq!(read(r#"{"hostPort": 80, "containerPort": 80, "hostIP": ""}"#), one("80/TCP to 80"));
        assert_eq!(read(r#"{"hostPort": 0, "containerPort": 80}"#), none);
        assert_eq!(read(r#"{"hostPort": 80, "containerPort": 80, "protocol": "SCTP"}"#), none);
        for wrong in [
            "1",
            r#"{"hostPort": 80}"#,
            r#"{"hostPort": 65536, "containerPort": 80}"#,
            r#"{"hostPort": 80, "containerPort": 80, "protocol": "tpc"}"#,
            r#"{"hostPort": 80, "containerPort": 80, "hostIP": "eth0"}"#,
        ] {
            let error = read(wrong).unwrap_err();
            assert_eq!(error["code"], 7, "{wrong}: {error}");
        }
        for text in [r"{}", r#"{"runtimeConfig": {}}"#, r#"{"runtimeConfig": {"portMappings": null}}"#] {
            assert_eq!(config(text).host_ports(), Ok(Vec::new()), "{text}");
        }
    }

    #[test]
    fn pods_of_arguments() {
        let read = |text| pod(text).map(|pod| pod.map(|pod| pod.to_string()));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("IgnoreUnknown=1;K8S_POD_NAME=web"), Ok(None), "half of it is none");
        assert_eq!(read("K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;"), Ok(Some("shop/web".into())));
        assert!(read("K8S_POD_NAME=a b;K8S_POD_NAMESPACE=shop").is_err());
        assert!(read("K8S_POD_NAME").is_err());
    }

    #[test]
    fn nothing_said_of_valid_attachments_is_not_none() {
        assert!(config("{}").valid_attachments().is_err());
        assert_eq!(config(r#"{"cni.dev/attachments": []}"#).valid_attachments(), Ok(BTreeSet::new()));
    }
}
