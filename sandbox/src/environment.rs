//! The environment of a container: the variables that announce Services, as the kubelet makes them, the
//! container's own, and `$(VAR)` in values and commands. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use model::{Service, Snapshot};

/// A variable and its value.
pub type Variable = (String, String);

/// The variables that announce Services to a pod of `namespace`: those of its namespace, unless `links` is
/// false (`enableServiceLinks`), and always default/kubernetes. In the order of the services' names and of their
/// ports. Nothing for a Service without a cluster IP.
pub fn service_environment(snapshot: &Snapshot, namespace: &str, links: bool) -> Vec<Variable> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for (name, member) in &snapshot.services {
        let own = links && &*name.namespace == namespace;
        let master = &*name.namespace == "default" && &*name.name == "kubernetes";
        // A service of the pod's own namespace wins against the master's of the same name.
        if own || (master && !chosen.contains_key("kubernetes")) {
            chosen.insert(&name.name, &member.service);
        }
    }
    chosen.values().flat_map(|service| variables(service)).collect()
}

fn variables(service: &Service) -> Vec<Variable> {
    let (Some(address), Some(first)) = (service.cluster_ips().first(), service.ports.first()) else {
        return Vec::new();
    };
    let prefix = variable_name(&service.name.name);
    let mut list = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_string()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
        let name = format!("{prefix}_SERVICE_PORT_{}", variable_name(&port.name));
        list.push((name, port.port.to_string()));
    }
    let url = |protocol: &str, port: u16| format!("{protocol}://{}", join(*address, port));
    let protocol = first.protocol.as_str().to_lowercase();
    list.push((format!("{prefix}_PORT"), url(&protocol, first.port)));
    for port in &service.ports {
        let protocol = port.protocol.as_str().to_lowercase();
        let prefix = format!("{prefix}_PORT_{}_{}", port.port, port.protocol);
        list.push((prefix.clone(), url(&protocol, port.port)));
        list.push((format!("{prefix}_PROTO"), protocol));
        list.push((format!("{prefix}_PORT"), port.port.to_string()));
        list.push((format!("{prefix}_ADDR"), address.to_string()));
    }
    list
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn join(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// A container's environment: `base` (which its image would set), its `own` variables in order, each able to
/// refer to the ones before it and to the services', and the services' that it does not set itself.
pub fn environment(base: &[Variable], own: &[Variable], services: &[Variable]) -> BTreeMap<String, String> {
    let announced: BTreeMap<&str, &str> = services.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut set: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in own {
        let value = expand(value, |name| {
            set.get(name).cloned().or_else(|| announced.get(name).map(ToString::to_string))
        });
        set.insert(name.clone(), value);
    }
    for (name, value) in services.iter().chain(base) {
        set.entry(name.clone()).or_insert_with(|| value.clone());
    }
    set
}

/// Replaces `$(NAME)` by its value. An unknown name stays as it is written, `$$` is one dollar sign.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => result.push_str(&value),
                None => result.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use model::{ClusterIps, LoadBalancer, Member, ObjectName, Protocol, ServiceKind, ServicePort, Traffic};

    fn service(
        namespace: &str,
        name: &str,
        address: Option<&str>,
        ports: &[(&str, u16, Protocol)],
    ) -> Service {
        let port = |(name, port, protocol): &(&str, u16, Protocol)| ServicePort {
            name: (*name).into(),
            protocol: *protocol,
            port: *port,
            node_port: None,
        };
        Service {
            name: ObjectName::new(namespace, name),
            created: 0,
            kind: ServiceKind::ClusterIp,
            cluster_ips: match address {
                Some(address) => ClusterIps::Addresses(vec![address.parse().unwrap()]),
                None => ClusterIps::Headless,
            },
            ports: ports.iter().map(port).collect(),
            external_ips: Vec::new(),
            load_balancer: LoadBalancer::default(),
            traffic: Traffic::default(),
            publish_not_ready: false,
            proxied_elsewhere: false,
        }
    }

    fn snapshot(services: Vec<Service>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for service in services {
            let name = service.name.clone();
            let member = Member { service: Arc::new(service), slices: Vec::new() };
            snapshot.services.insert(name, Arc::new(member));
        }
        snapshot
    }

    fn check(services: Vec<Service>, links: bool, expected: &[&str]) {
        let found = service_environment(&snapshot(services), "shop", links);
        let lines: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_service_with_named_ports() {
        let ports = [("http", 8080, Protocol::Tcp), ("dns-udp", 53, Protocol::Udp)];
        check(
            vec![service("shop", "foo-bar", Some("10.96.0.7"), &ports)],
            true,
            &[
                "FOO_BAR_SERVICE_HOST=10.96.0.7",
                "FOO_BAR_SERVICE_PORT=8080",
                "FOO_BAR_SERVICE_PORT_HTTP=8080",
                "FOO_BAR_SERVICE_PORT_DNS_UDP=53",
                "FOO_BAR_PORT=tcp://10.96.0.7:8080",
                "FOO_BAR_PORT_8080_TCP=tcp://10.96.0.7:8080",
                "FOO_BAR_PORT_8080_TCP_PROTO=tcp",
                "FOO_BAR_PORT_8080_TCP_PORT=8080",
                "FOO_BAR_PORT_8080_TCP_ADDR=10.96.0.7",
                "FOO_BAR_PORT_53_UDP=udp://10.96.0.7:53",
                "FOO_BAR_PORT_53_UDP_PROTO=udp",
                "FOO_BAR_PORT_53_UDP_PORT=53",
                "FOO_BAR_PORT_53_UDP_ADDR=10.96.0.7",
            ],
        );
    }

    fn hosts(services: Vec<Service>, links: bool) -> Vec<Variable> {
        let all = service_environment(&snapshot(services), "shop", links);
        all.into_iter().filter(|(name, _)| name.ends_with("_SERVICE_HOST")).collect()
    }

    fn named(name: &str, value: &str) -> Variable {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn own_namespace_and_the_master() {
        let port = [("", 80, Protocol::Tcp)];
        let services = || {
            vec![
                service("default", "kubernetes", Some("10.96.0.1"), &port),
                service("default", "other", Some("10.96.0.2"), &port),
                service("shop", "web", Some("fd00::3"), &port),
                service("shop", "headless", None, &port),
            ]
        };
        let master = named("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        assert_eq!(hosts(services(), true), [master.clone(), named("WEB_SERVICE_HOST", "fd00::3")]);
        assert_eq!(hosts(services(), false), [master]);
        let all = service_environment(&snapshot(services()), "shop", true);
        assert!(all.contains(&named("WEB_PORT", "tcp://[fd00::3]:80")));
    }

    #[test]
    fn an_own_service_named_kubernetes_wins() {
        let port = [("", 80, Protocol::Tcp)];
        let services = vec![
            service("default", "kubernetes", Some("10.96.0.1"), &port),
            service("shop", "kubernetes", Some("10.96.0.9"), &port),
        ];
        assert_eq!(hosts(services, true), [named("KUBERNETES_SERVICE_HOST", "10.96.0.9")]);
    }

    #[test]
    fn expansion() {
        let value = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, expected) in [
            ("$(A)-$(A)", "x-x"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("", ""),
            ("ü$(A)ü", "üxü"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }

    #[test]
    fn the_containers_own_variables_win() {
        let own =
            [named("WEB_SERVICE_HOST", "mine"), named("URL", "$(WEB_SERVICE_HOST):$(WEB_SERVICE_PORT)$(NO)")];
        let services = [named("WEB_SERVICE_HOST", "10.96.0.1"), named("WEB_SERVICE_PORT", "80")];
        let found = environment(&[named("PATH", "/bin"), named("URL", "base")], &own, &services);
        let lines: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = ["PATH=/bin", "URL=mine:80$(NO)", "WEB_SERVICE_HOST=mine", "WEB_SERVICE_PORT=80"];
        assert_eq!(lines, expected);
    }
}
