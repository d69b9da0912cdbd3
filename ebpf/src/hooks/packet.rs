//! The programs at the uplinks: a packet as the library asks for it, through the helpers, which keep the sums
//! of cards and the copies of packets right. Every return is "next", "drop" or "redirect", never "accept": programs of
//! others run too. Loaded and attached by the `proxy` crate.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    __sk_buff, BPF_ANY, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
    BPF_NOEXIST,
};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_l3_csum_replace,
    bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use ebpf::address::Address;
use ebpf::affinity::{AffinityKey, AffinityWord};
use ebpf::backend::Backend;
use ebpf::block::{Line, ServiceWord};
use ebpf::frontend::{FrontendKey, FrontendWord};
use ebpf::hostport::HostPortWord;
use ebpf::kernel::Maps;
use ebpf::maps::{FLEETING_SEEN, HALF_OPEN, UPLINKS_ENTRIES};
use ebpf::packet::engine::{self, Action};
use ebpf::packet::flow::{Flow, FlowKey};
use ebpf::packet::fragment::{
    FragmentKey, FragmentWord, HELD_BYTES, HELD_SECONDS, HELD_SLOTS, Held, HeldKey,
};
use ebpf::packet::headers::Headers;
use ebpf::packet::hook::{Buffer, Hook, Table};
use ebpf::packet::run::Run;
use ebpf::packet::uplink::{Uplink, place};
use ebpf::pod::PodAddresses;
use ebpf::stats::Reason;

use super::answers::{add, count_up};
use super::maps;
use super::redirect::{REDIRECT, send_on};

/// TCX_NEXT, which is TC_ACT_UNSPEC: the next program, or else the stack.
const NEXT: i32 = -1;
/// TC_ACT_SHOT.
const DROP: i32 = 2;

/// A packet comes in from an uplink.
#[classifier]
fn packet_arrive(ctx: TcContext) -> i32 {
    let packet = Packet(ctx);
    match (packet.uplink(), Packet::run()) {
        (Some(uplink), Some(run)) => verdict(engine::arrive(&packet, uplink, run)),
        _ => NEXT,
    }
}

/// A packet goes out by an uplink.
#[classifier]
fn packet_leave(ctx: TcContext) -> i32 {
    let packet = Packet(ctx);
    match (packet.uplink(), Packet::run()) {
        (Some(uplink), Some(run)) => verdict(engine::leave(&packet, uplink, run)),
        _ => NEXT,
    }
}

#[inline(always)]
fn verdict(action: Action) -> i32 {
    match action {
        Action::Pass => NEXT,
        Action::Drop => DROP,
        Action::Redirect => REDIRECT,
    }
}

/// One run of a hook.
pub(super) struct Packet(TcContext);

/// Beyond what all headers together may take: two tags, IPv6 with a fragment header, and those inside an ICMP error.
const HEADERS: u32 = 128;

impl Packet {
    #[inline(always)]
    fn uplink(&self) -> Option<&Uplink> {
        // SAFETY: the kernel hands a valid context to the hook.
        let index = unsafe { (*self.0.skb.skb).ifindex };
        for step in 0..UPLINKS_ENTRIES {
            // A torn read while the daemon changes a link's address spoils one packet.
            let uplink = maps::UPLINKS.get(place(index, step))?;
            if uplink.index == index {
                return Some(uplink);
            }
        }
        None
    }

    /// The work space of this CPU, which no other run uses meanwhile: hooks at links do not interrupt each other.
    #[inline(always)]
    fn run() -> Option<&'static mut Run> {
        let run = maps::RUNS.get_ptr_mut(0)?;
        // SAFETY: the lookup gave this CPU's element; it holds zeros or an earlier run, which are valid.
        unsafe { run.as_mut() }
    }

    #[inline(always)]
    pub(super) fn skb(&self) -> *mut __sk_buff {
        self.0.skb.skb
    }

    /// Where `words` words of the packet lie, if they are in its first piece.
    #[inline(always)]
    fn at_hand(&self, offset: u32, words: usize) -> Option<*mut u32> {
        let skb = self.0.skb.skb;
        // SAFETY: the kernel hands a valid context to the hook.
        let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
        let mut at = data;
        // Written out, because the verifier wants the bound, the check and the accesses to go by one register.
        // SAFETY: adds an offset that the mask leaves as it is.
        unsafe { asm!("{1} &= 255", "{0} += {1}", inout(reg) at, inout(reg) offset as usize => _) };
        if at + words * 4 > end { None } else { Some(at as *mut u32) }
    }
}

answer_maps!(Packet);

impl Buffer for Packet {
    #[inline(always)]
    fn size(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        if offset > HEADERS {
            return None;
        }
        let Some(at) = self.at_hand(offset, N) else {
            let mut words = MaybeUninit::<[u32; N]>::uninit();
            let is_read = load_far(self.0.skb.skb, offset, words.as_mut_ptr().cast(), N as u32 * 4);
            // SAFETY: the helper has filled it.
            return if is_read { Some(unsafe { words.assume_init() }) } else { None };
        };
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: so many words were just seen to be there; this target loads at any alignment, or the verifier
            // says so.
            *word = unsafe { at.add(index).read_volatile() };
        }
        Some(words)
    }

    #[inline(always)]
    fn store<const N: usize>(&self, offset: u32, words: &[u32; N], counted: bool) {
        if !counted
            && offset <= HEADERS
            && let Some(at) = self.at_hand(offset, N)
        {
            for (index, word) in words.iter().enumerate() {
                // SAFETY: so many words were just seen to be there; the kernel has made them ours before the hook ran.
                unsafe { at.add(index).write_volatile(*word) };
            }
            return;
        }
        let flags = if counted { BPF_F_RECOMPUTE_CSUM as u64 } else { 0 };
        let (skb, source) = (self.0.skb.skb, words.as_ptr().cast());
        // It can only fail beyond the end, where the headers were read before.
        // SAFETY: the helper checks the offset, and reads as many bytes as the array has.
        let _ = unsafe { bpf_skb_store_bytes(skb, offset, source, N as u32 * 4, flags) };
    }

    #[inline(always)]
    fn fix_header(&self, offset: u32, difference: u32) {
        // SAFETY: the helper checks the offset.
        let _ = unsafe { bpf_l3_csum_replace(self.0.skb.skb, offset, 0, difference as u64, 0) };
    }

    #[inline(always)]
    fn fix(&self, offset: u32, difference: u32, pseudo: bool, optional: bool) {
        let flags = if pseudo { BPF_F_PSEUDO_HDR as u64 } else { 0 }
            | if optional { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        // SAFETY: the helper checks the offset.
        let _ = unsafe { bpf_l4_csum_replace(self.0.skb.skb, offset, 0, difference as u64, flags) };
    }
}

impl Hook for Packet {
    #[inline(always)]
    fn tick(&self) -> u64 {
        // SAFETY: a helper without arguments; the verifier makes one load of it.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn touch(&self, table: Table, key: &FlowKey, seconds: u32, flags: u32) -> Option<Flow> {
        let element = match table {
            Table::Kept => maps::FLOWS.get_ptr_mut(key)?,
            Table::Fleeting => maps::FLEETING.get_ptr_mut(key)?,
        };
        // SAFETY: the lookup gave a valid element.
        let flow = unsafe { Flow::read(element) };
        if !flow.is_of(key) {
            return None;
        }
        if seconds > flow.seen {
            // SAFETY: the lookup gave a valid element; were it another flow's by now, that would live longer.
            unsafe { (&raw mut (*element).seen).write_volatile(seconds) };
        }
        if flags & !flow.state != 0 {
            // SAFETY: as above; were it another flow's by now, that would be swept sooner once it is idle.
            unsafe { set_flags(&raw mut (*element).state, flags) };
        }
        Some(flow)
    }

    #[inline(always)]
    fn insert(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool {
        store(table, key, flow, BPF_NOEXIST)
    }

    #[inline(always)]
    fn put(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool {
        store(table, key, flow, BPF_ANY)
    }

    #[inline(always)]
    fn remove(&self, table: Table, key: &FlowKey) -> bool {
        let result = match table {
            Table::Kept => maps::FLOWS.remove(key),
            Table::Fleeting => maps::FLEETING.remove(key),
        };
        result.is_ok()
    }

    #[inline(always)]
    fn confirm(&self, key: &FlowKey) -> bool {
        let Some(element) = maps::FLOWS.get_ptr_mut(key) else { return false };
        // SAFETY: the lookup gave a valid element; were it another flow's by now, that would not be counted.
        unsafe { set_flags(&raw mut (*element).state, Flow::CONFIRMED) & Flow::CONFIRMED == 0 }
    }

    #[inline(always)]
    fn half_open(&self) -> i64 {
        // SAFETY: the lookup gave a valid element; one load.
        maps::CROWD.get_ptr(HALF_OPEN).map_or(0, |count| unsafe { count.cast::<i64>().read_volatile() })
    }

    #[inline(always)]
    fn add_half_open(&self, difference: i64) {
        if let Some(count) = maps::CROWD.get_ptr_mut(HALF_OPEN) {
            // SAFETY: the lookup gave a valid element.
            unsafe { add(count, difference as u64) };
        }
    }

    #[inline(always)]
    fn fleeting(&self) -> u32 {
        // SAFETY: the lookup gave a valid element; one load.
        maps::CROWD.get_ptr(FLEETING_SEEN).map_or(0, |second| unsafe { second.read_volatile() as u32 })
    }

    #[inline(always)]
    fn note_fleeting(&self, now: u32) {
        if let Some(second) = maps::CROWD.get_ptr_mut(FLEETING_SEEN) {
            // SAFETY: the lookup gave a valid element; one store of what every CPU would store.
            unsafe { second.write_volatile(now as u64) };
        }
    }

    #[inline(always)]
    fn closed(&self, id: u32) {
        if let Some(counter) = maps::CLOSED.get_ptr_mut(id) {
            // SAFETY: the lookup gave a valid element.
            unsafe { count_up(counter) };
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentWord> {
        let word = maps::FRAGMENTS.get_ptr(key)?;
        // SAFETY: the lookup gave a valid element; one load.
        Some(FragmentWord(unsafe { word.read_volatile() }))
    }

    #[inline(always)]
    fn set_fragment(&self, key: &FragmentKey, word: FragmentWord) {
        // A full LRU makes room.
        let _ = maps::FRAGMENTS.insert(key, word.0, BPF_ANY as u64);
    }

    #[inline(always)]
    fn hold(&self, key: &FragmentKey, now: u32) -> bool {
        hold(self.0.skb.skb, key, now)
    }

    #[inline(always)]
    fn release(&self, key: &FragmentKey, now: u32) -> bool {
        release(self.0.skb.skb, key, now)
    }

    #[inline(always)]
    fn range(&self, address: &Address) -> u32 {
        match maps::RANGES.get(Key::new(128, *address)) {
            Some(flags) => *flags,
            None => 0,
        }
    }

    #[inline(always)]
    fn send_on(&self, headers: &Headers, flow: &Flow) -> bool {
        // SAFETY: the loader puts in the value; volatile, so that it is not taken for the zero that stands here.
        let redirects = unsafe { (&raw const maps::REDIRECT).read_volatile() } != 0;
        redirects && send_on(self, headers, flow)
    }

    #[inline(always)]
    fn may_use(&self, service: u32, client: &Address) -> bool {
        maps::SOURCES.get(Key::new(160, maps::Client { service, address: *client })).is_some()
    }
}

#[inline(always)]
fn store(table: Table, key: &FlowKey, flow: &Flow, flags: u32) -> bool {
    let result = match table {
        Table::Kept => maps::FLOWS.insert(key, flow, flags as u64),
        Table::Fleeting => maps::FLEETING.insert(key, flow, flags as u64),
    };
    result.is_ok()
}

/// Sets flags in a word that other CPUs change too. What it had before.
///
/// # Safety
///
/// `state` must point to an aligned u32 of a map.
#[inline(always)]
unsafe fn set_flags(state: *mut u32, flags: u32) -> u32 {
    let mut before = flags;
    // This target has no read-modify-write atomics in core; the instruction is in every kernel since Linux 5.12.
    // SAFETY: the caller vouches for the word.
    unsafe { asm!("{1} = atomic_fetch_or((u32 *)({0} + 0), {1})", in(reg) state, inout(wreg) before) };
    before
}

/// Reads words that may lie in another piece of the packet: of a large segment the first one may end with the headers.
/// A function of its own, out of the way of the packets that have them at hand.
#[inline(never)]
fn load_far(skb: *mut __sk_buff, offset: u32, words: *mut u32, size: u32) -> bool {
    // SAFETY: the helper checks the offset, and writes as many bytes as the caller has room for.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, words.cast(), size) == 0 }
}

/// Puts a copy of the whole frame into the first free slot of its datagram.
#[inline(never)]
fn hold(skb: *mut __sk_buff, key: &FragmentKey, now: u32) -> bool {
    let Some(copy) = maps::HOLDING.get_ptr_mut(0) else { return false };
    // SAFETY: the lookup gave this CPU's element, which no other run uses meanwhile.
    let copy = unsafe { &mut *copy };
    // SAFETY: the kernel hands a valid context to the hook.
    let size = unsafe { (*skb).len };
    if size == 0 || size >= HELD_BYTES as u32 {
        return false;
    }
    // SAFETY: the helper checks the length of the packet; the array is longer.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, copy.bytes.as_mut_ptr().cast(), size) } != 0 {
        return false;
    }
    (copy.size, copy.seen) = (size, now);
    for slot in 0..HELD_SLOTS {
        let key = HeldKey { fragment: *key, slot };
        if !is_held(&key, now) {
            return maps::HELD.insert(&key, &*copy, BPF_ANY as u64).is_ok();
        }
    }
    false
}

#[inline(always)]
fn is_held(key: &HeldKey, now: u32) -> bool {
    match maps::HELD.get_ptr(key) {
        // SAFETY: the lookup gave a valid element.
        Some(held) => now.saturating_sub(unsafe { (*held).seen }) <= HELD_SECONDS,
        None => false,
    }
}

/// Sends copies of the packet and then of what is held back to the ingress of the link, where they pass this hook
/// again. The packet itself becomes each of them in turn.
#[inline(never)]
fn release(skb: *mut __sk_buff, key: &FragmentKey, now: u32) -> bool {
    let mut released = false;
    for slot in 0..HELD_SLOTS {
        let key = HeldKey { fragment: *key, slot };
        // Slots are filled in order.
        let Some(held) = maps::HELD.get_ptr(&key) else { break };
        // SAFETY: the lookup gave a valid element; were it another datagram's by now, this one would be lost.
        let held = unsafe { &*held };
        if now.saturating_sub(held.seen) <= HELD_SECONDS {
            if !released {
                arrive_again(skb);
                released = true;
            }
            replace(skb, held);
        }
        let _ = maps::HELD.remove(&key);
    }
    released
}

/// Makes the packet what is held, and lets that arrive.
#[inline(always)]
fn replace(skb: *mut __sk_buff, held: &Held) {
    let size = held.size;
    if size == 0 || size >= HELD_BYTES as u32 {
        return;
    }
    // SAFETY: the helper checks the length.
    if unsafe { bpf_skb_change_tail(skb, size, 0) } != 0 {
        return;
    }
    let flags = BPF_F_RECOMPUTE_CSUM as u64;
    // SAFETY: the helper checks the length of the packet; the array is longer than what is read of it.
    if unsafe { bpf_skb_store_bytes(skb, 0, held.bytes.as_ptr().cast(), size, flags) } == 0 {
        arrive_again(skb);
    }
}

#[inline(always)]
fn arrive_again(skb: *mut __sk_buff) {
    // SAFETY: the kernel hands a valid context to the hook.
    let index = unsafe { (*skb).ifindex };
    // SAFETY: the helper checks the interface. Where a queue is full the packet is lost, as on any link.
    let _ = unsafe { bpf_clone_redirect(skb, index, BPF_F_INGRESS as u64) };
}
