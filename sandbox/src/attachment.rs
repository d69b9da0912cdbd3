//! The record of an attachment, kept by the kernel: the name, group, Ethernet address and alias of the link
//! that is the host end. Pure; attach, detach and the daemon's start read and write it.

use std::net::IpAddr;

use crate::netlink::{Link, MacAddress};
use crate::record::PodId;

/// The link group of every host end.
pub const LINK_GROUP: u32 = 0x4641_4952;
/// The kernel takes 255 bytes.
const ALIAS_LIMIT: usize = 255;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// An ADD takes milliseconds: one that is older than this, in seconds, and not finished has been killed.
const UNFINISHED_AFTER: u32 = 60;

/// A pod's attachment to the node, as its host end tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The name of the host end.
    pub link: String,
    /// The index of the host end.
    pub index: u32,
    /// The pod's addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The cookie of the pod's network namespace.
    pub cookie: u64,
    /// The container id that it was made for.
    pub container_id: String,
    /// The name of the link inside the pod.
    pub ifname: String,
    /// The pod; None where the alias had no room for its name.
    pub pod: Option<PodId>,
}

/// The two ends of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In the node's namespace.
    Host,
    /// In the pod's.
    Pod,
}

/// The name of the host end: 15 bytes, the longest that a link can have.
pub fn link_name(container_id: &str, ifname: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let hash = hash(container_id, ifname);
    let digits = (0..13).rev().map(|place| DIGITS[((hash >> (place * 5)) & 31) as usize] as char);
    ['f', 'w'].into_iter().chain(digits).collect()
}

/// The Ethernet address of an end: a local one, fixed by the identity, so that no udev rule changes it.
pub fn mac_address(container_id: &str, ifname: &str, end: End) -> MacAddress {
    let [a, b, c, d, e, ..] = hash(container_id, ifname).to_be_bytes();
    let last = match end {
        End::Host => e & !1,
        End::Pod => e | 1,
    };
    MacAddress([0x02, a, b, c, d, last])
}

/// Whether a link is what an ADD that was killed has left: ours, without a record, and too old to become one.
pub(crate) fn is_unfinished(link: &Link, now: u32) -> bool {
    let ours = link.is_veth && link.group == LINK_GROUP;
    ours && link.alias.is_none() && now.saturating_sub(link.born) > UNFINISHED_AFTER
}

impl Attachment {
    /// The attachment of a link; None for a link that is not ours or whose ADD is unfinished.
    pub fn of(link: &Link) -> Option<Self> {
        if !link.is_veth || link.group != LINK_GROUP {
            return None;
        }
        let alias = link.alias.as_deref()?;
        let mut words = alias.strip_prefix("v1 ")?.splitn(5, ' ');
        let addresses = words.next()?.split(',').filter(|word| !word.is_empty());
        let addresses = addresses.map(str::parse).collect::<Result<_, _>>().ok()?;
        let cookie = words.next()?.parse().ok()?;
        let container_id = words.next()?.to_owned();
        let ifname = words.next()?.to_owned();
        let pod = words.next().filter(|word| !word.ends_with('~')).and_then(|word| word.split_once('/'));
        let pod =
            pod.map(|(namespace, name)| PodId { namespace: namespace.to_owned(), name: name.to_owned() });
        Some(Self {
            link: link.name.clone(),
            index: link.index,
            addresses,
            cookie,
            container_id,
            ifname,
            pod,
        })
    }

    /// The alias that says the same.
    pub fn alias(&self) -> String {
        let of = |want_v4: bool| {
            let found = self.addresses.iter().find(|ip| ip.is_ipv4() == want_v4);
            found.map(ToString::to_string).unwrap_or_default()
        };
        let pod = self.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default();
        let text = format!(
            "v1 {},{} {} {} {} {pod}",
            of(true),
            of(false),
            self.cookie,
            self.container_id,
            self.ifname
        );
        cut(text)
    }
}

fn cut(mut text: String) -> String {
    if text.len() > ALIAS_LIMIT {
        let mut end = ALIAS_LIMIT - 1;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('~');
    }
    text
}

/// FNV-1a of both, with a byte between them that neither can contain.
fn hash(container_id: &str, ifname: &str) -> u64 {
    let bytes = container_id.bytes().chain([0]).chain(ifname.bytes());
    let hash = bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
    // The last bytes reach the upper bits only through the multiplications that follow them.
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(pod: &str) -> Attachment {
        Attachment {
            link: "fw0".into(),
            index: 7,
            addresses: vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            cookie: 4123,
            container_id: "c0ffee".into(),
            ifname: "eth0".into(),
            pod: Some(PodId { namespace: "shop".into(), name: pod.into() }),
        }
    }

    fn link(alias: &str) -> Link {
        Link {
            index: 7,
            name: "fw0".into(),
            group: LINK_GROUP,
            born: 1000,
            alias: Some(alias.into()),
            mtu: 1500,
            mac: None,
            peer: 2,
            is_veth: true,
            is_up: true,
        }
    }

    #[test]
    fn an_alias_reads_back() {
        let attachment = example("web");
        assert_eq!(attachment.alias(), "v1 10.1.0.5,fd00::5 4123 c0ffee eth0 shop/web");
        assert_eq!(Attachment::of(&link(&attachment.alias())), Some(attachment));
    }

    #[test]
    fn one_family_leaves_the_other_empty() {
        let mut attachment = example("web");
        attachment.addresses.remove(0);
        assert_eq!(attachment.alias(), "v1 ,fd00::5 4123 c0ffee eth0 shop/web");
        assert_eq!(Attachment::of(&link(&attachment.alias())), Some(attachment));
    }

    #[test]
    fn a_long_name_is_cut_from_the_right() {
        let attachment = example(&"w".repeat(253));
        let alias = attachment.alias();
        assert_eq!((alias.len(), alias.ends_with("w~")), (255, true));
        let read = Attachment::of(&link(&alias)).unwrap();
        assert_eq!(read, Attachment { pod: None, ..attachment });
    }

    #[test]
    fn other_links_are_not_attachments() {
        let alias = example("web").alias();
        assert_eq!(Attachment::of(&Link { group: 0, ..link(&alias) }), None);
        assert_eq!(Attachment::of(&Link { is_veth: false, ..link(&alias) }), None);
        assert_eq!(Attachment::of(&Link { alias: None, ..link("") }), None);
        for wrong in
            ["", "v2 10.1.0.5, 1 c eth0 a/b", "v1 10.1.0.300, 1 c eth0 a/b", "v1 10.1.0.3, x c eth0 a/b"]
        {
            assert_eq!(Attachment::of(&link(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn an_old_link_without_a_record_is_unfinished() {
        let bare = Link { alias: None, ..link("") };
        assert!(is_unfinished(&bare, 1061));
        assert!(!is_unfinished(&bare, 1060), "its ADD may still be at work");
        assert!(!is_unfinished(&bare, 999), "born a moment after the clock was read");
        assert!(!is_unfinished(&link(&example("web").alias()), 5000));
        assert!(!is_unfinished(&link("by hand"), 5000), "somebody wrote something there");
        assert!(!is_unfinished(&Link { group: 0, ..bare.clone() }, 5000));
        assert!(!is_unfinished(&Link { is_veth: false, ..bare }, 5000));
    }

    #[test]
    fn names_and_ethernet_addresses_follow_the_identity() {
        let name = link_name("c0ffee", "eth0");
        assert_eq!((name.len(), &name[..2]), (15, "fw"));
        assert_eq!(name, link_name("c0ffee", "eth0"));
        assert_ne!(name, link_name("c0ffee", "eth1"));
        assert_ne!(link_name("ab", "c"), link_name("a", "bc"));
        let host = mac_address("c0ffee", "eth0", End::Host);
        let pod = mac_address("c0ffee", "eth0", End::Pod);
        assert_ne!(host, pod);
        assert_eq!((host.0[0], pod.0[0]), (2, 2));
    }
}
