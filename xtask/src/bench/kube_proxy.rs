//! A rule set in the shape of kube-proxy's nftables mode, for what it costs to have the kernel's own NAT do the
//! work: a verdict map of all services, a chain a service, a chain an endpoint, dnat. As text for `nft -f`.

use std::fmt::Write as _;

/// The services that it serves, beside those of Fairway: an address each, the same ports on one endpoint.
pub(super) struct Rules<'a> {
    /// The addresses of the services.
    pub(super) addresses: &'a [String],
    /// The protocols and ports of each.
    pub(super) ports: &'a [(&'a str, u16)],
    /// The one endpoint of all.
    pub(super) endpoint: &'a str,
}

/// The rule set.
pub(super) fn text(parts: &[Rules<'_>]) -> String {
    let (mut chains, mut elements) = (String::new(), String::new());
    for Rules { addresses, ports, endpoint } in parts {
        for address in *addresses {
            for (protocol, port) in *ports {
                let name = format!("{address}-{protocol}-{port}").replace('.', "-");
                let written = write!(
                    chains,
                    "  chain endpoint-{name} {{\n    ip saddr {endpoint} jump mark-for-masquerade\n    \
                     meta l4proto {protocol} dnat to {endpoint}:{port}\n  }}\n  \
                     chain service-{name} {{\n    numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}\n  }}\n"
                )
                .and_then(|()| {
                    writeln!(elements, "      {address} . {protocol} . {port} : goto service-{name},")
                });
                written.expect("writing to a string cannot fail");
            }
        }
    }
    format!(
        "table ip kube-proxy {{\n  chain mark-for-masquerade {{\n    mark set mark or 0x4000\n  }}\n{chains}  \
         map service-ips {{\n    type ipv4_addr . inet_proto . inet_service : verdict\n    \
         elements = {{\n{elements}    }}\n  }}\n  \
         chain services {{\n    ip daddr . meta l4proto . th dport vmap @service-ips\n  }}\n  \
         chain nat-output {{\n    type nat hook output priority -100; policy accept;\n    jump services\n  }}\n  \
         chain nat-postrouting {{\n    type nat hook postrouting priority 100; policy accept;\n    \
         meta mark & 0x4000 != 0 masquerade\n  }}\n}}\n"
    )
}

/// A node port: its protocol and number, and the address and port of its endpoint.
pub(super) type NodePort<'a> = (&'a str, u16, &'a str, u16);

/// The rule set of node ports with policy Cluster: what comes from outside is masqueraded.
pub(super) fn node_ports(ports: &[NodePort<'_>]) -> String {
    let (mut chains, mut elements) = (String::new(), String::new());
    for (protocol, port, endpoint, target) in ports {
        let name = format!("{protocol}-{port}");
        let written = write!(
            chains,
            "  chain endpoint-{name} {{\n    ip saddr {endpoint} jump mark-for-masquerade\n    \
             meta l4proto {protocol} dnat to {endpoint}:{target}\n  }}\n  \
             chain service-{name} {{\n    numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}\n  }}\n  \
             chain external-{name} {{\n    jump mark-for-masquerade\n    goto service-{name}\n  }}\n"
        )
        .and_then(|()| writeln!(elements, "      {protocol} . {port} : goto external-{name},"));
        written.expect("writing to a string cannot fail");
    }
    format!(
        "table ip kube-proxy {{\n  chain mark-for-masquerade {{\n    mark set mark or 0x4000\n  }}\n{chains}  \
         map service-ips {{\n    type ipv4_addr . inet_proto . inet_service : verdict\n  }}\n  \
         map service-nodeports {{\n    type inet_proto . inet_service : verdict\n    \
         elements = {{\n{elements}    }}\n  }}\n  \
         chain services {{\n    ip daddr . meta l4proto . th dport vmap @service-ips\n    \
         fib daddr type local meta l4proto . th dport vmap @service-nodeports\n  }}\n  \
         chain nat-prerouting {{\n    type nat hook prerouting priority -100; policy accept;\n    jump services\n  }}\n  \
         chain nat-output {{\n    type nat hook output priority -100; policy accept;\n    jump services\n  }}\n  \
         chain nat-postrouting {{\n    type nat hook postrouting priority 100; policy accept;\n    \
         meta mark & 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_every_service_has_its_chains() {
        let addresses = ["10.97.0.1".to_owned(), "10.97.0.2".to_owned()];
        let rules =
            Rules { addresses: &addresses, ports: &[("tcp", 80), ("udp", 80)], endpoint: "198.18.0.1" };
        let text = text(&[rules]);
        assert_eq!(text.matches("chain service-").count(), 4);
        assert!(text.contains("10.97.0.2 . udp . 80 : goto service-10-97-0-2-udp-80,"), "{text}");
    }

    #[test]
    fn a_node_port_leads_from_outside_to_its_endpoint() {
        let text = node_ports(&[("udp", 30080, "10.244.1.2", 80)]);
        assert!(text.contains("udp . 30080 : goto external-udp-30080,"), "{text}");
        assert!(text.contains("meta l4proto udp dnat to 10.244.1.2:80"), "{text}");
    }
}
