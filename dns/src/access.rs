//! Who is answered: clients in the ranges given, each so often a second. Pure: the time comes in. Asked by
//! `worker` for every datagram and by `tcp` for every connection and question; the daemon replaces the ranges.
//!
//! Its memory does not grow with the clients: they share a table in which a busy one keeps its place.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// Places for clients, of 8 octets each: many times the pods of a node.
const PLACES: usize = 8192;
/// The upper bits of a place tell its client from another; below them is a time.
const TAG: u64 = 0xfff << 52;
/// What a client may have saved up: so long at its full rate.
const BURST: Duration = Duration::from_secs(1);

/// Who is answered.
#[derive(Debug, Default)]
pub struct Access {
    rules: ArcSwap<Rules>,
    limit: Option<Limit>,
    strangers: Strangers,
}

/// What a client that nothing allows is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strangers {
    /// Nothing: no answer tells them that somebody is here.
    #[default]
    Ignore,
    /// REFUSED.
    Refuse,
}

/// What to do with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Answer,
    /// Say REFUSED to a stranger.
    Refuse,
    /// Say nothing to a stranger.
    Ignore,
    /// Say nothing to a client that asks too much.
    Limit,
}

/// Ranges of addresses, joined and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(Vec<(Ipv6Addr, Ipv6Addr)>);

/// Nobody is a stranger where nothing was said.
#[derive(Debug, Default)]
struct Rules {
    allowed: Option<Ranges>,
    own: Ranges,
}

impl Access {
    /// Everybody is answered, at `per_second` questions at most if that is not 0, until ranges are given.
    pub fn new(per_second: u32, strangers: Strangers) -> Self {
        let limit = (per_second > 0).then(|| Limit::new(per_second));
        Self { rules: ArcSwap::default(), limit, strangers }
    }

    /// Answers `own`, this node itself, without a limit, and `clients` with it; the rest are strangers.
    pub fn allow(&self, own: &[IpNet], clients: &[IpNet]) {
        let all: Vec<IpNet> = own.iter().chain(clients).copied().collect();
        self.rules.store(Rules { allowed: Some(Ranges::new(&all)), own: Ranges::new(own) }.into());
    }

    /// What to do with a question of a client, asked so long after some fixed moment.
    pub(crate) fn verdict(&self, client: IpAddr, now: Duration) -> Verdict {
        let rules = self.rules.load();
        match &rules.allowed {
            Some(allowed) if !allowed.contains(client) => match self.strangers {
                Strangers::Ignore => return Verdict::Ignore,
                Strangers::Refuse => return Verdict::Refuse,
            },
            Some(_) | None => {}
        }
        match &self.limit {
            Some(limit) if !rules.own.contains(client) && !limit.take(client, now) => Verdict::Limit,
            Some(_) | None => Verdict::Answer,
        }
    }
}

impl Ranges {
    fn new(nets: &[IpNet]) -> Self {
        let nets = IpNet::aggregate(&nets.to_vec());
        let mut ranges: Vec<_> =
            nets.iter().map(|net| (wide(net.network()), wide(net.broadcast()))).collect();
        ranges.sort_unstable();
        Self(ranges)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = wide(address);
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after.checked_sub(1).is_some_and(|at| address <= self.0[at].1)
    }
}

/// Both families in one order.
fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// How often each client is answered: the generic cell rate algorithm. A place holds a tag and the moment, in
/// units of 16 ns, at which its client will have used up what it has been given.
#[derive(Debug)]
struct Limit {
    places: Box<[AtomicU64]>,
    hasher: RandomState,
    /// What one question uses up.
    price: u64,
}

impl Limit {
    fn new(per_second: u32) -> Self {
        let price = units(Duration::from_secs(1)) / u64::from(per_second);
        let places = std::iter::repeat_with(AtomicU64::default).take(PLACES).collect();
        Self { places, hasher: RandomState::new(), price }
    }

    /// Whether a client may ask one more.
    fn take(&self, client: IpAddr, now: Duration) -> bool {
        let (hash, now) = (self.hasher.hash_one(client), units(now));
        let (place, tag) = (self.place(hash), hash & TAG);
        let word = place.load(Ordering::Relaxed);
        let used = if word & TAG == tag { (word & !TAG).max(now) } else { now };
        if used > now + units(BURST) {
            return false;
        }
        // Two threads that meet here count one question for two, which is no harm.
        place.store(tag | (used + self.price) & !TAG, Ordering::Relaxed);
        true
    }

    /// The client's own place of the two it may have; else that of the one who asked less of late.
    fn place(&self, hash: u64) -> &AtomicU64 {
        let first = usize::try_from(hash % PLACES as u64).unwrap_or_default();
        let (one, other) = (&self.places[first], &self.places[first ^ 1]);
        let [a, b] = [one, other].map(|place| place.load(Ordering::Relaxed));
        match hash & TAG {
            tag if a & TAG == tag => one,
            tag if b & TAG == tag => other,
            _ if a & !TAG <= b & !TAG => one,
            _ => other,
        }
    }
}

fn units(time: Duration) -> u64 {
    // 52 bits are two years; after that one client may be let through too often, once.
    u64::try_from(time.as_nanos() / 16).unwrap_or(u64::MAX) & !TAG
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_ascii_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn everybody_is_answered_until_ranges_are_given() {
        let access = Access::default();
        assert_eq!(access.verdict(ip("203.0.113.9"), Duration::ZERO), Verdict::Answer);
        access.allow(&[], &[]);
        assert_eq!(access.verdict(ip("203.0.113.9"), Duration::ZERO), Verdict::Ignore);
    }

    #[test]
    fn ranges_are_exact_in_both_families() {
        let access = Access::new(0, Strangers::Refuse);
        access.allow(
            &nets("127.0.0.0/8 ::1/128"),
            &nets("10.244.1.0/24 10.244.2.0/24 10.0.0.0/32 fd00:1::/64"),
        );
        for text in ["127.0.0.1", "::1", "10.244.1.0", "10.244.2.255", "10.0.0.0", "fd00:1::ffff"] {
            assert_eq!(access.verdict(ip(text), Duration::ZERO), Verdict::Answer, "{text}");
        }
        for text in
            ["10.244.0.255", "10.244.3.0", "10.0.0.1", "fd00:1:0:1::", "::", "0.0.0.0", "255.255.255.255"]
        {
            assert_eq!(access.verdict(ip(text), Duration::ZERO), Verdict::Refuse, "{text}");
        }
    }

    #[test]
    fn a_client_that_asks_too_much_is_limited_and_the_others_are_not() {
        let access = Access::new(100, Strangers::Ignore);
        access.allow(&nets("192.0.2.10/32"), &nets("10.244.0.0/16"));
        let answered = |client: &str, count: u32, now: Duration| {
            let verdicts = (0..count).map(|_| access.verdict(ip(client), now));
            verdicts.filter(|verdict| *verdict == Verdict::Answer).count()
        };
        assert_eq!(answered("10.244.0.5", 1000, Duration::ZERO), 101, "a second's worth and one");
        assert_eq!(answered("10.244.0.6", 50, Duration::ZERO), 50);
        assert_eq!(answered("192.0.2.10", 1000, Duration::ZERO), 1000, "the node itself");
        assert_eq!(answered("10.244.0.5", 1000, Duration::from_millis(500)), 50);
        assert_eq!(answered("10.244.0.5", 1000, Duration::from_secs(9)), 101);
    }

    #[test]
    fn many_clients_do_not_wash_out_a_busy_one() {
        let access = Access::new(10, Strangers::Ignore);
        let busy = ip("10.244.0.5");
        while access.verdict(busy, Duration::ZERO) == Verdict::Answer {}
        for number in 0..100_000_u32 {
            access.verdict(IpAddr::from(Ipv6Addr::from(u128::from(number))), Duration::ZERO);
        }
        let answered = (0..100).filter(|_| access.verdict(busy, Duration::ZERO) == Verdict::Answer).count();
        assert!(answered <= 11, "at most its place was taken once: {answered}");
    }
}
