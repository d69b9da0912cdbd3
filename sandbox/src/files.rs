//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a pod, byte for byte as the kubelet and the container
//! runtime write them. Pure: texts in, texts out.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The kubelet's limits of `resolv.conf`; the C library ignores what exceeds them.
pub(crate) const NAMESERVER_LIMIT: usize = 3;
pub(crate) const SEARCH_LIMIT: usize = 32;
pub(crate) const SEARCH_CHARACTERS: usize = 2048;
/// No DNS name is longer (RFC 1035, section 2.3.4).
const DOMAIN_CHARACTERS: usize = 253;
/// The longest name that a UTS namespace takes, less one as in the kubelet.
const HOSTNAME_CHARACTERS: usize = 63;
/// The longest name that a UTS namespace takes.
const FULL_NAME_CHARACTERS: usize = 64;

/// One of `spec.hostAliases`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HostAlias {
    /// The address, as it is written: so it stands in the file.
    #[serde(deserialize_with = "written_address")]
    pub ip: String,
    /// Its names.
    #[serde(default)]
    pub hostnames: Vec<String>,
}

/// `spec.dnsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum DnsPolicy {
    /// The cluster's DNS, unless the pod is on the node's network.
    #[default]
    ClusterFirst,
    /// The cluster's DNS in any case.
    ClusterFirstWithHostNet,
    /// What the node uses.
    Default,
    /// `spec.dnsConfig` alone.
    None,
}

/// `spec.dnsConfig`, and any `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct DnsConfig {
    /// Addresses of nameservers.
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
    /// Search domains.
    #[serde(default)]
    pub searches: Vec<String>,
    /// Options.
    #[serde(default)]
    pub options: Vec<DnsOption>,
}

/// One option of the resolver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DnsOption {
    /// Its name.
    pub name: String,
    /// What follows the colon.
    #[serde(default)]
    pub value: Option<String>,
}

/// What the names of a pod in the cluster are made of.
#[derive(Clone, Copy, Debug)]
pub struct ClusterDns<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// For example `cluster.local`.
    pub domain: &'a str,
    /// The addresses of the cluster's DNS.
    pub addresses: &'a [IpAddr],
}

/// The pod's hostname: `spec.hostname`, else the pod's name, no longer than a hostname may be.
pub fn hostname(pod: &str, written: Option<&str>) -> String {
    let name = written.filter(|name| !name.is_empty()).unwrap_or(pod);
    if name.len() <= HOSTNAME_CHARACTERS {
        return name.to_owned();
    }
    let end = (0..=HOSTNAME_CHARACTERS).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].trim_end_matches(['-', '.']).to_owned()
}

/// What the pod's UTS namespace and `/etc/hostname` say: the hostname, or with `setHostnameAsFQDN` the full name, where
/// the pod has a `domain`. One that is too long is not cut.
pub(crate) fn kernel_name(
    hostname: &str,
    domain: Option<&str>,
    as_full_name: bool,
) -> Result<String, String> {
    let Some(domain) = domain.filter(|_| as_full_name) else { return Ok(hostname.to_owned()) };
    let name = format!("{hostname}.{domain}");
    if name.len() <= FULL_NAME_CHARACTERS {
        return Ok(name);
    }
    Err(format!(
        "spec.setHostnameAsFQDN: {name} has {} characters, and a host name has at most {FULL_NAME_CHARACTERS}: \
         shorten hostname or subdomain",
        name.len()
    ))
}

/// `/etc/hosts` of a pod with a network of its own. `domain` is what follows the hostname in its full name.
pub fn hosts(addresses: &[IpAddr], hostname: &str, domain: Option<&str>, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        let _ = match domain {
            Some(domain) => writeln!(text, "{address}\t{hostname}.{domain}\t{hostname}"),
            None => writeln!(text, "{address}\t{hostname}"),
        };
    }
    text + &alias_lines(aliases)
}

/// `/etc/hosts` of a pod on the node's network: the node's own, with the aliases.
pub fn hosts_on_host_network(node: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
    }
    text
}

/// `/etc/resolv.conf` of a pod. `node` is what the node itself uses, without loopback nameservers.
pub fn resolv_conf(
    policy: DnsPolicy,
    host_network: bool,
    cluster: ClusterDns<'_>,
    node: &DnsConfig,
    own: Option<&DnsConfig>,
) -> String {
    let with_cluster = match policy {
        DnsPolicy::ClusterFirst => !host_network,
        DnsPolicy::ClusterFirstWithHostNet => true,
        DnsPolicy::Default | DnsPolicy::None => false,
    };
    let mut config = if policy == DnsPolicy::None {
        DnsConfig::default()
    } else if with_cluster && !cluster.addresses.is_empty() {
        cluster_config(cluster, node)
    } else {
        node.clone()
    };
    if let Some(own) = own {
        merge(&mut config, own);
    }
    within_limits(&mut config);
    config.to_text()
}

fn cluster_config(cluster: ClusterDns<'_>, node: &DnsConfig) -> DnsConfig {
    let ClusterDns { namespace, domain, addresses } = cluster;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    searches.extend(node.searches.iter().cloned());
    let ndots = DnsOption { name: "ndots".into(), value: Some("5".into()) };
    DnsConfig { nameservers: addresses.to_vec(), searches: distinct(searches), options: vec![ndots] }
}

/// An option of the pod replaces one of the same name, in its place.
fn merge(config: &mut DnsConfig, own: &DnsConfig) {
    config.nameservers.extend(&own.nameservers);
    config.nameservers = distinct(std::mem::take(&mut config.nameservers));
    config.searches.extend(own.searches.iter().cloned());
    config.searches = distinct(std::mem::take(&mut config.searches));
    for option in &own.options {
        match config.options.iter_mut().find(|known| known.name == option.name) {
            Some(known) => known.value.clone_from(&option.value),
            None => config.options.push(option.clone()),
        }
    }
}

fn within_limits(config: &mut DnsConfig) {
    config.nameservers.truncate(NAMESERVER_LIMIT);
    // In this order: one that is too long takes a place all the same.
    config.searches.truncate(SEARCH_LIMIT);
    config.searches.retain(|domain| domain.len() <= DOMAIN_CHARACTERS);
    while config.searches.join(" ").len() > SEARCH_CHARACTERS {
        config.searches.pop();
    }
}

fn distinct<T: PartialEq>(list: Vec<T>) -> Vec<T> {
    list.into_iter().fold(Vec::new(), |mut kept, item| {
        if !kept.contains(&item) {
            kept.push(item);
        }
        kept
    })
}

/// `IP=NAME,NAME...`, as on the command line.
impl FromStr for HostAlias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, names) = text.split_once('=').ok_or_else(|| format!("{text:?} is not IP=NAME,NAME..."))?;
        ip.parse::<IpAddr>().map_err(|_| format!("{ip:?} is not an IP address"))?;
        let hostnames: Vec<String> = names.split(',').map(str::to_owned).collect();
        if hostnames.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
            return Err(format!("{names:?} is not a list of names"));
        }
        Ok(Self { ip: ip.to_owned(), hostnames })
    }
}

fn written_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<IpAddr>().map_err(D::Error::custom)?;
    Ok(text)
}

/// The word of the API.
impl FromStr for DnsPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::ClusterFirst, Self::ClusterFirstWithHostNet, Self::Default, Self::None];
        let found = all.into_iter().find(|policy| format!("{policy:?}") == text);
        found.ok_or_else(|| {
            format!("{text:?} is none of ClusterFirst, ClusterFirstWithHostNet, Default, None")
        })
    }
}

impl DnsConfig {
    /// Reads a `resolv.conf` as the kubelet does: the last `search` line wins, options add up.
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (fe80::1%eth0) means nothing inside a pod.
                    let address: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
                    config.nameservers.extend(address);
                }
                Some("search") => {
                    config.searches =
                        words.map(|word| word.strip_suffix('.').unwrap_or(word).to_owned()).collect();
                    config.searches.retain(|domain| !domain.is_empty());
                }
                Some("options") => {
                    let options = words.map(|word| match word.split_once(':') {
                        Some((name, value)) => {
                            DnsOption { name: name.to_owned(), value: Some(value.to_owned()) }
                        }
                        None => DnsOption { name: word.to_owned(), value: None },
                    });
                    merge(&mut config, &Self { options: options.collect(), ..Self::default() });
                }
                Some(_) | None => {}
            }
        }
        config
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        for nameserver in &self.nameservers {
            let _ = writeln!(text, "nameserver {nameserver}");
        }
        if !self.options.is_empty() {
            let options: Vec<String> = self.options.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "options {}", options.join(" "));
        }
        text
    }
}

impl std::fmt::Display for DnsOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value.as_deref() {
            Some(value) if !value.is_empty() => write!(f, "{}:{value}", self.name),
            Some(_) | None => f.write_str(&self.name),
        }
    }
}

/// What the node really asks: its `resolv.conf`, or that of systemd-resolved where the first names only a stub
/// on loopback, which means another machine inside a pod. Says in one line what it left out.
pub fn upstreams(node: &str, resolved: Option<&str>) -> (DnsConfig, Option<String>) {
    let mut config = DnsConfig::parse(node);
    let is_stub = |config: &DnsConfig| config.nameservers.iter().any(IpAddr::is_loopback);
    if !is_stub(&config) {
        return (config, None);
    }
    let found =
        resolved.map(DnsConfig::parse).filter(|real| real.nameservers.iter().any(|ip| !ip.is_loopback()));
    let left_out: Vec<String> =
        config.nameservers.iter().filter(|ip| ip.is_loopback()).map(ToString::to_string).collect();
    let instead = if found.is_some() { "those of systemd-resolved are used" } else { "no other is known" };
    if let Some(real) = found {
        config.nameservers = real.nameservers;
        if !real.searches.is_empty() {
            config.searches = real.searches;
        }
    }
    config.nameservers.retain(|ip| !ip.is_loopback());
    let line =
        format!("the nameserver {} of this node is its own loopback: {instead} in pods", left_out.join(", "));
    (config, Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn aliases() -> Vec<HostAlias> {
        let alias = |ip: &str, names: &[&str]| HostAlias {
            ip: ip.to_owned(),
            hostnames: names.iter().map(ToString::to_string).collect(),
        };
        vec![alias("172.24.238.8", &["cka01", "master"]), alias("172.25.159.103", &["cka02", "worker"])]
    }

    const HEAD: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

    #[test]
    fn hosts_with_aliases() {
        let text = hosts(&ips(&["192.168.102.13"]), "web1", None, &aliases());
        let tail = "192.168.102.13\tweb1\n\n# Entries added by HostAliases.\n\
            172.24.238.8\tcka01\tmaster\n172.25.159.103\tcka02\tworker\n";
        assert_eq!(text, format!("{HEAD}{tail}"));
        assert_eq!(text.len(), 290);
    }

    #[test]
    fn hosts_without_aliases_end_with_the_pod() {
        let text = hosts(&ips(&["192.168.102.13"]), "web1", None, &[]);
        assert_eq!(text, format!("{HEAD}192.168.102.13\tweb1\n"));
    }

    #[test]
    fn hosts_with_a_subdomain_in_both_families() {
        let text = hosts(&ips(&["10.1.0.5", "fd00::5"]), "a", Some("sub.ns.svc.cluster.local"), &[]);
        let name = "a.sub.ns.svc.cluster.local\ta";
        assert_eq!(text, format!("{HEAD}10.1.0.5\t{name}\nfd00::5\t{name}\n"));
    }

    #[test]
    fn hosts_of_the_node_keep_its_lines() {
        let text = hosts_on_host_network("127.0.0.1 localhost\n", &aliases()[..1]);
        let expected = "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n\
            # Entries added by HostAliases.\n172.24.238.8\tcka01\tmaster\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn hostnames() {
        assert_eq!(hostname("web", None), "web");
        assert_eq!(hostname("web", Some("")), "web");
        assert_eq!(hostname("web", Some("shop")), "shop");
        assert_eq!(hostname(&"a".repeat(70), None), "a".repeat(63));
        assert_eq!(hostname(&format!("{}-.-b", "a".repeat(60)), None), "a".repeat(60));
    }

    fn check(policy: DnsPolicy, host_network: bool, node: &str, own: Option<&str>, expected: &str) {
        let cluster =
            ClusterDns { namespace: "default", domain: "cluster.local", addresses: &ips(&["10.96.0.10"]) };
        let own = own.map(DnsConfig::parse);
        let text = resolv_conf(policy, host_network, cluster, &DnsConfig::parse(node), own.as_ref());
        assert_eq!(text, expected, "{policy:?} {host_network} {node:?} {own:?}");
    }

    const CLUSTER: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
        nameserver 10.96.0.10\noptions ndots:5\n";
    const NODE: &str = "nameserver 192.0.2.53\n";

    #[test]
    fn policies() {
        check(DnsPolicy::ClusterFirst, false, NODE, None, CLUSTER);
        check(DnsPolicy::ClusterFirst, true, NODE, None, NODE);
        check(DnsPolicy::ClusterFirstWithHostNet, true, NODE, None, CLUSTER);
        check(DnsPolicy::Default, false, NODE, None, NODE);
        check(DnsPolicy::None, false, NODE, Some("nameserver 1.1.1.1\n"), "nameserver 1.1.1.1\n");
    }

    #[test]
    fn every_policy_with_and_without_a_config_on_either_network() {
        let own = "search corp.example\nnameserver 1.1.1.1\noptions ndots:2 edns0\n";
        let node = "search lan\nnameserver 192.0.2.53\noptions rotate\n";
        let cluster = "search default.svc.cluster.local svc.cluster.local cluster.local lan\n\
            nameserver 10.96.0.10\noptions ndots:5\n";
        let cluster_and_own = "search default.svc.cluster.local svc.cluster.local cluster.local lan corp.example\n\
            nameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n";
        let node_and_own = "search lan corp.example\nnameserver 192.0.2.53\nnameserver 1.1.1.1\n\
            options rotate ndots:2 edns0\n";
        // Without a config, with one: in the pod's own network, then in the node's.
        let table = [
            (DnsPolicy::ClusterFirst, [cluster, cluster_and_own], [node, node_and_own]),
            (DnsPolicy::ClusterFirstWithHostNet, [cluster, cluster_and_own], [cluster, cluster_and_own]),
            (DnsPolicy::Default, [node, node_and_own], [node, node_and_own]),
            (DnsPolicy::None, ["", own], ["", own]),
        ];
        for (policy, in_own, in_nodes) in table {
            for (host_network, expected) in [(false, in_own), (true, in_nodes)] {
                check(policy, host_network, node, None, expected[0]);
                check(policy, host_network, node, Some(own), expected[1]);
            }
        }
    }

    #[test]
    fn the_nodes_search_domains_come_last_and_once() {
        let node = "search example.org cluster.local.\nnameserver 192.0.2.53\noptions timeout:1\n";
        let searches = "search default.svc.cluster.local svc.cluster.local cluster.local example.org\n";
        let expected = format!("{searches}nameserver 10.96.0.10\noptions ndots:5\n");
        check(DnsPolicy::ClusterFirst, false, node, None, &expected);
    }

    #[test]
    fn the_pods_own_config_is_merged() {
        let own = "search corp.example svc.cluster.local\nnameserver 1.1.1.1\nnameserver 10.96.0.10\n\
            options ndots:2 edns0\n";
        let expected = "search default.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
            nameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n";
        check(DnsPolicy::ClusterFirst, false, NODE, Some(own), expected);
    }

    #[test]
    fn words_of_the_command_line() {
        assert_eq!("172.24.238.8=cka01,master".parse(), Ok(aliases().remove(0)));
        for wrong in ["1.2.3.4", "1.2.3.400=a", "1.2.3.4=", "1.2.3.4=a,,b", "1.2.3.4=a b"] {
            assert!(wrong.parse::<HostAlias>().is_err(), "{wrong}");
        }
        assert_eq!("Default".parse(), Ok(DnsPolicy::Default));
        assert!("default".parse::<DnsPolicy>().is_err());
    }

    #[test]
    fn limits() {
        let servers = "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n";
        check(
            DnsPolicy::Default,
            false,
            servers,
            None,
            servers.strip_suffix("nameserver 1.1.1.4\n").unwrap(),
        );
        let domains: Vec<String> = (0..40).map(|n| format!("d{n:02}")).collect();
        let line = |domains: &[String]| format!("search {}\n", domains.join(" "));
        check(DnsPolicy::Default, false, &line(&domains), None, &line(&domains[..32]));
        let long: Vec<String> = (0..10).map(|n| format!("{n}{}", "x".repeat(249))).collect();
        check(DnsPolicy::Default, false, &line(&long), None, &line(&long[..8]));
        let absurd = [String::from("ok"), "y".repeat(254)];
        check(DnsPolicy::Default, false, &line(&absurd), None, "search ok\n");
        let late = ["y".repeat(254)].into_iter().chain(domains.clone()).collect::<Vec<_>>();
        check(DnsPolicy::Default, false, &line(&late), None, &line(&domains[..31]));
    }

    #[test]
    fn limits_hold_for_what_is_merged() {
        let own = "search a b\nnameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\noptions debug ndots:1 debug\n";
        let expected = "search default.svc.cluster.local svc.cluster.local cluster.local a b\n\
            nameserver 10.96.0.10\nnameserver 1.1.1.1\nnameserver 1.1.1.2\noptions ndots:1 debug\n";
        check(DnsPolicy::ClusterFirst, false, NODE, Some(own), expected);
    }

    #[test]
    fn an_option_of_the_pod_without_a_value_takes_the_value_away() {
        let expected = CLUSTER.replace("ndots:5", "ndots");
        check(DnsPolicy::ClusterFirst, false, NODE, Some("options ndots\n"), &expected);
    }

    #[test]
    fn a_cluster_without_dns_leaves_the_pod_to_the_nodes() {
        let cluster = ClusterDns { namespace: "default", domain: "cluster.local", addresses: &[] };
        let text = resolv_conf(DnsPolicy::ClusterFirst, false, cluster, &DnsConfig::parse(NODE), None);
        assert_eq!(text, NODE);
    }

    #[test]
    fn full_names() {
        let domain = Some("sub.ns.svc.cluster.local");
        assert_eq!(kernel_name("web", domain, true).as_deref(), Ok("web.sub.ns.svc.cluster.local"));
        assert_eq!(kernel_name("web", domain, false).as_deref(), Ok("web"));
        assert_eq!(kernel_name("web", None, true).as_deref(), Ok("web"));
        let longest = "a".repeat(39);
        assert_eq!(kernel_name(&longest, domain, true).map(|name| name.len()), Ok(64));
        let error = kernel_name(&"a".repeat(40), domain, true).unwrap_err();
        assert!(
            error.ends_with(
                "has 65 characters, and a host name has at most 64: shorten hostname or subdomain"
            )
        );
    }

    #[test]
    fn a_resolv_conf_is_read_like_the_kubelet_does() {
        let text = "# comment\n; other\ndomain x\nnameserver 1.1.1.1\nnameserver nonsense\nsearch a b.\nsearch c .\n\
            options ndots:1 rotate\noptions ndots:3\n";
        assert_eq!(
            DnsConfig::parse(text).to_text(),
            "search c\nnameserver 1.1.1.1\noptions ndots:3 rotate\n"
        );
    }

    #[test]
    fn a_stub_on_loopback_is_replaced() {
        let stub = "nameserver 127.0.0.53\noptions edns0\nsearch lan\n";
        let (config, line) = upstreams(stub, Some("nameserver 192.0.2.1\nsearch home\n"));
        assert_eq!(config.to_text(), "search home\nnameserver 192.0.2.1\noptions edns0\n");
        let expected = "the nameserver 127.0.0.53 of this node is its own loopback: \
            those of systemd-resolved are used in pods";
        assert_eq!(line.as_deref(), Some(expected));
        let (config, line) = upstreams("nameserver 127.0.0.1\nnameserver 192.0.2.2\n", None);
        assert_eq!(config.to_text(), "nameserver 192.0.2.2\n");
        assert!(line.unwrap().contains("127.0.0.1"));
        assert_eq!(upstreams(NODE, Some(stub)).1, None);
    }
}
