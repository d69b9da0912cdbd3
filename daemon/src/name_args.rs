//! The part of the command line that is about names: whose, from whom, and who may ask. Part of `cli`; nothing
//! here reads more than the words themselves.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, ValueEnum};
use dns::DomainName;
use ipnet::IpNet;

const DNS_PORT: u16 = 53;

/// Names.
#[derive(Args, Clone, Debug)]
pub struct NameArgs {
    /// Domain of the cluster.
    #[arg(long, value_name = "DOMAIN", env = "FAIRWAY_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Cluster DNS addresses [default: those of kube-system/kube-dns, else the tenth of --service-cidr].
    #[arg(long, value_name = "IP", env = "FAIRWAY_CLUSTER_DNS", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// Further addresses on which the node's DNS server listens, on `lo`.
    #[arg(
        long,
        value_name = "IP",
        env = "FAIRWAY_DNS_LOCAL",
        value_delimiter = ',',
        default_value = "169.254.20.10"
    )]
    pub dns_local: Vec<IpAddr>,
    /// Servers for names outside the cluster [default: those of the node's resolv.conf].
    #[arg(long, value_name = "IP[:PORT]", env = "FAIRWAY_DNS_UPSTREAM", value_delimiter = ',', value_parser = server)]
    pub dns_upstream: Vec<SocketAddr>,
    /// Servers for the names of one domain; say it again for another server or domain.
    #[arg(
        long,
        value_name = "DOMAIN=IP[:PORT]",
        env = "FAIRWAY_DNS_STUB_DOMAIN",
        value_delimiter = ',',
        value_parser = stub_domain
    )]
    pub dns_stub_domain: Vec<(DomainName, SocketAddr)>,
    /// TTL of cluster names, in seconds.
    #[arg(long, value_name = "SECONDS", env = "FAIRWAY_DNS_TTL", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub dns_ttl: u32,
    /// Which names of pods such as `10-244-0-5.shop.pod` exist.
    #[arg(long, value_name = "WHICH", env = "FAIRWAY_DNS_POD_NAMES", default_value = "disabled")]
    pub dns_pod_names: PodNames,
    /// Ranges that may ask, besides this node, the pods of the nodes that are known, and --no-masquerade.
    #[arg(long, value_name = "CIDR", env = "FAIRWAY_DNS_ALLOW", value_delimiter = ',')]
    pub dns_allow: Vec<IpNet>,
    /// What is said to those who may not ask.
    #[arg(long, value_name = "WHAT", env = "FAIRWAY_DNS_STRANGERS", default_value = "ignore")]
    pub dns_strangers: Strangers,
    /// Questions a second that one client is answered, this node itself excepted; 0 for no limit.
    #[arg(long, value_name = "NUMBER", env = "FAIRWAY_DNS_RATE_LIMIT", default_value_t = 10_000)]
    pub dns_rate_limit: u32,
    /// Log one question in so many, with its answer's code; 0 for none.
    #[arg(long, value_name = "NUMBER", env = "FAIRWAY_DNS_LOG", default_value_t = 0)]
    pub dns_log: u32,
}

/// Which names of pods exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PodNames {
    /// None.
    Disabled,
    /// All in a namespace that exists, whether there is such a pod or not.
    Insecure,
    /// Those of pods that exist; every node then watches all pods.
    Verified,
}

/// What is said to those who may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strangers {
    /// Nothing.
    Ignore,
    /// REFUSED.
    Refuse,
}

impl From<PodNames> for dns::PodNames {
    fn from(which: PodNames) -> Self {
        match which {
            PodNames::Disabled => Self::Disabled,
            PodNames::Insecure => Self::Insecure,
            PodNames::Verified => Self::Verified,
        }
    }
}

impl From<Strangers> for dns::Strangers {
    fn from(what: Strangers) -> Self {
        match what {
            Strangers::Ignore => Self::Ignore,
            Strangers::Refuse => Self::Refuse,
        }
    }
}

fn server(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, DNS_PORT));
    }
    text.parse().map_err(|_| format!("{text:?} is neither an address nor an address with a port"))
}

fn stub_domain(text: &str) -> Result<(DomainName, SocketAddr), String> {
    let (domain, address) = text.split_once('=').ok_or("say it as DOMAIN=IP or DOMAIN=IP:PORT")?;
    let domain = DomainName::parse(domain).ok_or_else(|| format!("{domain:?} is not a domain name"))?;
    Ok((domain, server(address)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_stub_domains_are_read_or_said_to_be_wrong() {
        assert_eq!(server("192.0.2.1").unwrap().to_string(), "192.0.2.1:53");
        assert_eq!(server("[2001:db8::1]:5353").unwrap().to_string(), "[2001:db8::1]:5353");
        let (domain, server) = stub_domain("Corp.example=2001:db8::1").unwrap();
        assert_eq!((domain.to_string(), server.port()), ("Corp.example.".to_owned(), 53));
        for (text, sentence) in [
            ("corp.example", "say it as DOMAIN=IP or DOMAIN=IP:PORT"),
            ("corp..example=192.0.2.1", "\"corp..example\" is not a domain name"),
            ("corp.example=here", "\"here\" is neither an address nor an address with a port"),
        ] {
            assert_eq!(stub_domain(text).unwrap_err(), sentence);
        }
    }
}
