//! What every hook asks of the maps, answered for a type of its own: the socket hooks and the packet hooks
//! differ in what they run on, not in the tables they read. It decides nothing.

use core::arch::asm;

/// Adds one to a counter that other CPUs and the daemon share.
///
/// # Safety
///
/// `counter` must point to an aligned u64 of a map.
#[inline(always)]
pub(super) unsafe fn count_up(counter: *mut u64) {
    // SAFETY: as the caller vouches.
    unsafe { add(counter, 1) };
}

/// Adds to a counter that hooks on other CPUs change too, which wraps.
///
/// # Safety
///
/// `counter` must point to an aligned u64 of a map.
#[inline(always)]
pub(super) unsafe fn add(counter: *mut u64, difference: u64) {
    // This target has no read-modify-write atomics in core; the instruction itself is in every kernel.
    // SAFETY: the caller vouches for the counter; every other access to it is one aligned load or store.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) difference) };
}

/// Implements [`ebpf::kernel::Recorded`] for the context of a hook whose socket has a cookie.
macro_rules! answer_records {
    ($hook:ty) => {
        impl Recorded for $hook {
            #[inline(always)]
            fn record(&self) -> Option<&Record> {
                seat::record(&PinnedSeats, self.socket_cookie())
            }

            #[inline(always)]
            fn remove_record(&self) {
                seat::remove(&PinnedSeats, self.socket_cookie());
            }

            #[inline(always)]
            fn recorded_backend(&self, id: u32) -> Option<&Backend> {
                maps::BACKENDS.get(id)
            }

            #[inline(always)]
            fn closed(&self, id: u32) {
                if let Some(counter) = maps::CLOSED.get_ptr_mut(id) {
                    // SAFETY: the lookup gave a valid element.
                    unsafe { count_up(counter) };
                }
            }
        }
    };
}

/// Implements [`ebpf::kernel::Maps`] for the context of a hook.
macro_rules! answer_maps {
    ($hook:ty) => {
        impl Maps for $hook {
            #[inline(always)]
            fn frontend(&self, key: &FrontendKey) -> Option<FrontendWord> {
                let word = maps::FRONTENDS.get_ptr(key)?;
                // SAFETY: the lookup gave a valid element; one load, so that the check belongs to the word.
                Some(FrontendWord(unsafe { word.read_volatile() }))
            }

            #[inline(always)]
            fn service(&self, id: u32) -> Option<ServiceWord> {
                let word = maps::SERVICES.get_ptr(id)?;
                // SAFETY: the lookup gave a valid element; one load of a word that the daemon swaps.
                Some(ServiceWord(unsafe { word.read_volatile() }))
            }

            #[inline(always)]
            fn line(&self, index: u32) -> Option<&Line> {
                maps::SLOTS.get(index)
            }

            #[inline(always)]
            fn backend(&self, id: u32) -> Option<&Backend> {
                maps::BACKENDS.get(id)
            }

            #[inline(always)]
            fn opened(&self, id: u32) {
                if let Some(backend) = maps::BACKENDS.get_ptr_mut(id) {
                    // SAFETY: the lookup gave a valid element; the counter is an aligned u64 inside it.
                    let counter = unsafe { backend.byte_add(ebpf::backend::OPENED_OFFSET) };
                    // SAFETY: as above.
                    unsafe { count_up(counter.cast()) };
                }
            }

            #[inline(always)]
            fn refused(&self, service: u32) {
                if let Some(counter) = maps::REFUSED.get_ptr_mut(service) {
                    // SAFETY: the lookup gave a valid element.
                    unsafe { count_up(counter) };
                }
            }

            #[inline(always)]
            fn count(&self, reason: Reason) {
                if let Some(counter) = maps::STATS.get_ptr_mut(reason as u32) {
                    // SAFETY: the lookup gave this CPU's element, and a hook does not move between CPUs.
                    unsafe { *counter += 1 };
                }
            }

            #[inline(always)]
            fn affinity(&self, key: &AffinityKey) -> Option<AffinityWord> {
                let word = maps::AFFINITY.get_ptr(key)?;
                // SAFETY: the lookup gave a valid element; one load.
                Some(AffinityWord(unsafe { word.read_volatile() }))
            }

            #[inline(always)]
            fn set_affinity(&self, key: &AffinityKey, word: AffinityWord) {
                // A full LRU makes room; a lost race is the other hook's answer, which is as good.
                let _ = maps::AFFINITY.insert(key, word.0, BPF_ANY as u64);
            }

            #[inline(always)]
            fn host_port(&self, key: &FrontendKey) -> Option<HostPortWord> {
                let word = maps::HOSTPORTS.get_ptr(key)?;
                // SAFETY: the lookup gave a valid element; one load.
                Some(HostPortWord(unsafe { word.read_volatile() }))
            }

            #[inline(always)]
            fn pod(&self, cookie: u64) -> Option<&PodAddresses> {
                // SAFETY: a torn read gives one connection another client's affinity, no more.
                unsafe { maps::PODS.get(cookie) }
            }

            #[inline(always)]
            fn heartbeat_ns(&self) -> u64 {
                // SAFETY: the lookup gave a valid element; one load of a word that the daemon stores.
                maps::NODE.get_ptr(0).map_or(0, |beat| unsafe { beat.read_volatile() })
            }

            #[inline(always)]
            fn now_ns(&self) -> u64 {
                // SAFETY: a helper without arguments.
                unsafe { bpf_ktime_get_coarse_ns() }
            }

            #[inline(always)]
            fn random(&self) -> u32 {
                // SAFETY: a helper without arguments.
                unsafe { bpf_get_prandom_u32() }
            }
        }
    };
}
