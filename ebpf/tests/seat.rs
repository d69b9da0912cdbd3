//! Records of sockets in their seats and beside them, on the atomic operations of the host: what sockets of one
//! seat do to each other, and what a reader sees of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use ebpf::address::{Address, Port};
use ebpf::frontend::{FrontendKey, TCP};
use ebpf::maps::RECORDS_ENTRIES;
use ebpf::reverse::Record;
use ebpf::seat::{self, Records, Seat, Seats};

/// One seat, which all cookies of the tests share, and the hash beside it.
#[derive(Default)]
struct Bench {
    seat: Seat,
    aside: Mutex<HashMap<u64, &'static Record>>,
    asked: AtomicU32,
}

impl Bench {
    fn hash(&self) -> MutexGuard<'_, HashMap<u64, &'static Record>> {
        self.aside.lock().expect("nobody panicked")
    }
}

impl Seats for Bench {
    fn seat(&self, index: u32) -> Option<&Seat> {
        (index == 1).then_some(&self.seat)
    }
    fn count(&self, seat: &Seat, summand: u64) {
        aside(seat).fetch_add(summand, Ordering::SeqCst);
    }
    fn remove_aside(&self, cookie: u64) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.hash().remove(&cookie).is_some()
    }
}

impl Records for Bench {
    fn claim(&self, seat: &Seat, cookie: u64) -> bool {
        holder(seat).compare_exchange(0, cookie, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
    fn aside(&self, cookie: u64) -> Option<&Record> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.hash().get(&cookie).copied()
    }
    fn put_aside(&self, cookie: u64, record: &Record) -> bool {
        let mut aside = self.hash();
        aside.insert(cookie, Box::leak(Box::new(*record))).is_none()
    }
}

fn holder(seat: &Seat) -> &AtomicU64 {
    // SAFETY: an aligned word, reached by single accesses alone.
    unsafe { AtomicU64::from_ptr(seat.holder()) }
}

fn aside(seat: &Seat) -> &AtomicU64 {
    // SAFETY: as above.
    unsafe { AtomicU64::from_ptr(seat.aside()) }
}

/// Nobody sits there, and nothing is counted.
#[track_caller]
fn check_empty(bench: &Bench) {
    let left = (holder(&bench.seat).load(Ordering::Relaxed), aside(&bench.seat).load(Ordering::Relaxed));
    assert_eq!(left, (0, 0));
    assert!(bench.hash().is_empty());
}

/// The cookie number `n` of those that share seat 1.
fn cookie(n: u64) -> u64 {
    1 + n * u64::from(RECORDS_ENTRIES)
}

/// A record whose every field tells `n`.
fn record(n: u64) -> Record {
    let [.., a, b] = n.to_be_bytes();
    let address = Address::from(IpAddr::from([10, 96, a, b]));
    Record::of_host_port(&FrontendKey::new(address, Port::new(u16::from_be_bytes([a, b])), TCP))
}

#[test]
fn a_record_is_found_until_it_is_removed() {
    let bench = Bench::default();
    assert_eq!(seat::record(&bench, cookie(0)), None);
    assert!(seat::add(&bench, cookie(0), &record(1)));
    assert_eq!(seat::record(&bench, cookie(0)), Some(&record(1)));
    assert_eq!(bench.seat.occupant(), Some((cookie(0), record(1))));
    assert!(!seat::add(&bench, cookie(0), &record(2)), "it has one");
    seat::remove(&bench, cookie(0));
    assert_eq!(seat::record(&bench, cookie(0)), None);
    assert_eq!(bench.seat.occupant(), None);
    assert_eq!(bench.asked.load(Ordering::Relaxed), 0, "nobody looks into the hash in vain");
}

#[test]
fn whose_seat_is_taken_is_found_in_the_hash_as_long_as_it_lies_there() {
    let bench = Bench::default();
    for n in 0..3 {
        assert!(seat::add(&bench, cookie(n), &record(n)));
    }
    // Whoever leaves first, the others stay where they are, and have one record each.
    seat::remove(&bench, cookie(0));
    assert!(!seat::add(&bench, cookie(1), &record(9)), "it has one, though its seat is free now");
    assert_eq!(seat::record(&bench, cookie(1)), Some(&record(1)));
    seat::remove(&bench, cookie(1));
    assert!(seat::add(&bench, cookie(1), &record(7)));
    assert_eq!(bench.seat.occupant(), Some((cookie(1), record(7))));
    assert_eq!(seat::record(&bench, cookie(2)), Some(&record(2)));
    (1..3).for_each(|n| seat::remove(&bench, cookie(n)));
    check_empty(&bench);
}

#[test]
fn sockets_of_one_seat_never_see_each_other_and_a_reader_sees_whole_records() {
    const SOCKETS: u64 = 4;
    const ROUNDS: u64 = 20_000;
    let (bench, ended) = (Bench::default(), AtomicBool::new(false));
    let sockets = |n: u64| {
        for round in 0..ROUNDS {
            // Each socket dials two frontends in turn, so that its own earlier record may be seen as torn, too.
            let mine = record(2 * n + round % 2);
            assert!(seat::add(&bench, cookie(n), &mine));
            assert_eq!(seat::record(&bench, cookie(n)), Some(&mine));
            seat::remove(&bench, cookie(n));
        }
    };
    let reader = || {
        let mut seen = 0;
        while !ended.load(Ordering::Acquire) {
            let Some((who, found)) = bench.seat.occupant() else { continue };
            let n = who / u64::from(RECORDS_ENTRIES);
            assert!([record(2 * n), record(2 * n + 1)].contains(&found), "{who}: {found:?}");
            seen += 1;
        }
        seen
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(reader);
        let sockets: Vec<_> = (0..SOCKETS).map(|n| scope.spawn(move || sockets(n))).collect();
        let ran: Vec<_> = sockets.into_iter().map(|socket| socket.join()).collect();
        ended.store(true, Ordering::Release);
        assert!(ran.iter().all(Result::is_ok) && reader.join().expect("whole records") > 0);
    });
    check_empty(&bench);
}
