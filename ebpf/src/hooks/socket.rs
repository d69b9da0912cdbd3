//! A hook's context: the socket address in the socket's family, and the kernel as the library asks it. The only
//! place that reads or writes a context; it decides nothing.

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_coarse_ns,
};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use ebpf::address::{Address, Port};
use ebpf::affinity::{AffinityKey, AffinityWord};
use ebpf::backend::Backend;
use ebpf::block::{Line, ServiceWord};
use ebpf::choice::{ChoiceKey, ChoiceWord};
use ebpf::frontend::{FrontendKey, FrontendWord, TCP, UDP};
use ebpf::hostport::HostPortWord;
use ebpf::kernel::{Kernel, Maps, Recorded};
use ebpf::packet::uplink::range;
use ebpf::pod::PodAddresses;
use ebpf::reverse::{Dialled, Record, ReverseKey};
use ebpf::seat;
use ebpf::stats::Reason;

use super::answers::count_up;
use super::maps;
use super::seats::PinnedSeats;

/// One run of a hook.
pub(super) struct Socket {
    ctx: SockAddrContext,
    ipv4: bool,
}

/// One run of the hook of a socket that is being closed.
pub(super) struct Closing(pub(super) SockContext);

/// One field of the context, read as the verifier wants it: with its own width.
macro_rules! read {
    ($socket:expr, $($field:tt)+) => {{
        // SAFETY: the kernel hands a valid context to the hook.
        let field = unsafe { &raw const (*$socket.ctx.sock_addr).$($field)+ };
        // SAFETY: as above; volatile keeps the width.
        unsafe { field.read_volatile() }
    }};
}

/// One field of the context, written with its own width.
macro_rules! write {
    ($socket:expr, $value:expr, $($field:tt)+) => {{
        // SAFETY: the kernel hands a valid context to the hook.
        let field = unsafe { &raw mut (*$socket.ctx.sock_addr).$($field)+ };
        // SAFETY: as above; volatile keeps the width.
        unsafe { field.write_volatile($value) }
    }};
}

impl Socket {
    #[inline(always)]
    pub(super) fn ipv4(ctx: SockAddrContext) -> Self {
        Self { ctx, ipv4: true }
    }

    #[inline(always)]
    pub(super) fn ipv6(ctx: SockAddrContext) -> Self {
        Self { ctx, ipv4: false }
    }

    /// What is dialled; None for protocols that are not ours.
    #[inline(always)]
    pub(super) fn dialled_key(&self) -> Option<FrontendKey> {
        let protocol = match read!(self, protocol) {
            number if number == TCP as u32 => TCP,
            number if number == UDP as u32 => UDP,
            _ => return None,
        };
        Some(FrontendKey::new(self.address(), self.port(), protocol))
    }

    /// The address of the context.
    #[inline(always)]
    pub(super) fn address(&self) -> Address {
        if self.ipv4 {
            return Address::from_ipv4_word(read!(self, user_ip4));
        }
        Address::from_words([
            read!(self, user_ip6[0]),
            read!(self, user_ip6[1]),
            read!(self, user_ip6[2]),
            read!(self, user_ip6[3]),
        ])
    }

    /// The port of the context.
    #[inline(always)]
    pub(super) fn port(&self) -> Port {
        Port::from_word(read!(self, user_port) as u16)
    }

    /// Changes the address and port of the context.
    #[inline(always)]
    pub(super) fn set(&self, address: Address, port: Port) {
        let [a, b, c, d] = address.words();
        if self.ipv4 {
            write!(self, d, user_ip4);
        } else {
            write!(self, a, user_ip6[0]);
            write!(self, b, user_ip6[1]);
            write!(self, c, user_ip6[2]);
            write!(self, d, user_ip6[3]);
        }
        write!(self, port.word() as u32, user_port);
    }

    /// Whether the address of the context is the peer that the socket is connected to.
    #[inline(always)]
    pub(super) fn is_peer(&self) -> bool {
        let socket = self.raw();
        if socket.is_null() {
            return false;
        }
        // SAFETY: checked for null; the field has its own width.
        let port = unsafe { (&raw const (*socket).dst_port).read_volatile() };
        port != 0 && Port::from_word(port) == self.port()
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock {
        read!(self, __bindgen_anon_1.sk)
    }
}

answer_maps!(Socket);
answer_records!(Socket);
answer_records!(Closing);

impl Closing {
    #[inline(always)]
    fn socket_cookie(&self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_socket_cookie(self.0.as_ptr()) }
    }
}

impl Kernel for Socket {
    #[inline(always)]
    fn is_own(&self, address: &Address) -> bool {
        match maps::RANGES.get(Key::new(128, *address)) {
            Some(flags) => *flags & range::NODE != 0,
            None => false,
        }
    }

    #[inline(always)]
    fn choice(&self, key: &ChoiceKey) -> Option<ChoiceWord> {
        let word = maps::CHOICE.get_ptr(key)?;
        // SAFETY: the lookup gave a valid element; one load.
        Some(ChoiceWord(unsafe { word.read_volatile() }))
    }

    #[inline(always)]
    fn set_choice(&self, key: &ChoiceKey, word: ChoiceWord) {
        // As for affinity.
        let _ = maps::CHOICE.insert(key, word.0, BPF_ANY as u64);
    }

    #[inline(always)]
    fn dialled(&self, key: &ReverseKey) -> Option<Dialled> {
        let element = maps::REVERSE_UDP.get_ptr(key)?;
        // SAFETY: the lookup gave a valid element.
        Some(unsafe { Dialled::read(element) })
    }

    #[inline(always)]
    fn set_dialled(&self, key: &ReverseKey, dialled: &Dialled) {
        if maps::REVERSE_UDP.insert(key, dialled, BPF_ANY as u64).is_err() {
            self.count(Reason::NotRecorded);
        }
    }

    #[inline(always)]
    fn foresee_record(&self) {
        seat::foresee(&PinnedSeats, self.socket_cookie());
    }

    #[inline(always)]
    fn add_record(&self, record: &Record) -> bool {
        seat::add(&PinnedSeats, self.socket_cookie(), record)
    }

    #[inline(always)]
    fn found_pod(&self, cookie: u64) -> Option<&PodAddresses> {
        // SAFETY: as for pods: a torn read gives one connection another client's affinity, no more.
        unsafe { maps::FOUND.get(cookie) }
    }

    #[inline(always)]
    fn socket_cookie(&self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }

    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) }
    }

    #[inline(always)]
    fn node_netns(&self) -> u64 {
        // SAFETY: a static; volatile, because the loader puts the value in after compilation.
        unsafe { ptr::read_volatile(&raw const maps::NODE_NETNS) }
    }
}
