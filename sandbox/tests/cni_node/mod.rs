//! A node in a network namespace of its own, where the real plug-in is run. Nothing to clean up: the namespaces go
//! with the test.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod pins;

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Output, Stdio};

use sandbox::{Attachment, Netlink, NetworkNamespace, attachments};
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fairway-cni");

/// Says that a test could not run; with CI=true that is a failure.
pub(crate) fn root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root");
    println!("SKIP: needs root");
    false
}

pub(crate) struct Node {
    pub(crate) namespace: NetworkNamespace,
}

pub(crate) struct Pod {
    pub(crate) namespace: NetworkNamespace,
}

/// What the plug-in is asked.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) input: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    /// Null if nothing was printed.
    pub(crate) output: Value,
    pub(crate) log: String,
}

impl Pod {
    pub(crate) fn new() -> Self {
        Self { namespace: NetworkNamespace::create().unwrap() }
    }

    /// A file of the namespace, as a runtime names one.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_fd().as_raw_fd())
    }
}

/// The network configuration, with these ranges.
pub(crate) fn config(version: &str, ranges: &[&str]) -> Value {
    json!({"cniVersion": version, "name": "fairway", "type": "fairway-cni", "podCidrs": ranges, "mtu": 1400})
}

impl Call {
    pub(crate) fn new(command: &str, input: &Value) -> Self {
        let input = if input.is_null() { String::new() } else { input.to_string() };
        Self { variables: vec![("CNI_COMMAND", command.to_owned())], input }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Everything that any command needs.
    pub(crate) fn of(command: &str, id: &str, netns: &str, input: &Value) -> Self {
        let call = Self::new(command, input).with("CNI_PATH", "/opt/cni/bin").with("CNI_IFNAME", "eth0");
        call.with("CNI_CONTAINERID", id).with("CNI_NETNS", netns)
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        Self { namespace: NetworkNamespace::create().unwrap() }
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(work).unwrap()
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.namespace).unwrap()
    }

    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        self.run(attachments).unwrap()
    }

    pub(crate) fn start(&self, call: &Call) -> Child {
        let mut program = Command::new(PROGRAM);
        program.env_clear().envs(call.variables.iter().cloned());
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.run(|| program.spawn()).unwrap();
        // One that needs no input may have ended without reading it.
        let _ = child.stdin.take().unwrap().write_all(call.input.as_bytes());
        child
    }

    pub(crate) fn call(&self, call: &Call) -> Answer {
        Answer::of(self.start(call).wait_with_output().unwrap())
    }

    pub(crate) fn add(&self, id: &str, pod: &Pod, ranges: &[&str]) -> Answer {
        self.call(&Call::of("ADD", id, &pod.path(), &config("1.0.0", ranges)))
    }

    pub(crate) fn delete(&self, id: &str) -> Answer {
        self.call(&Call::of("DEL", id, "", &config("1.0.0", &[])))
    }

    /// Neither a link nor a route of ours is here.
    pub(crate) fn is_empty(&self) -> bool {
        let mut node = self.netlink();
        let links = node.links().unwrap();
        links.iter().all(|link| !link.is_veth) && node.host_routes().unwrap().is_empty()
    }
}

impl Answer {
    pub(crate) fn of(output: Output) -> Self {
        let text = String::from_utf8(output.stdout).unwrap();
        let output_value = match text.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text:?}")),
        };
        let log = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), output: output_value, log }
    }

    /// The first address, as the result of ADD has it.
    pub(crate) fn address(&self) -> String {
        let address = self.output["ips"][0]["address"].as_str();
        address.unwrap_or_else(|| panic!("no address: {self:?}")).to_owned()
    }

    #[track_caller]
    pub(crate) fn succeeds(&self) {
        assert_eq!((self.code, &self.output, self.log.as_str()), (Some(0), &Value::Null, ""));
    }

    /// It failed so, told in the right form.
    #[track_caller]
    pub(crate) fn fails(&self, code: u32, message: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        let told = (self.output["code"].as_u64(), self.output["msg"].as_str());
        assert_eq!(told, (Some(u64::from(code)), Some(message)), "{self:?}");
        let mut keys: Vec<_> = self.output.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"]);
    }
}
