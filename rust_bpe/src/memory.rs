//! Large arrays that the kernel is asked to back with huge pages.
//!
//! Tables and arrays that are visited at random miss the translation cache at almost every visit when their pages hold
//! 4 KiB. With pages of 2 MiB, asked for before the first touch, training on 73 MB of multilingual text took 2.0 s of
//! processor time instead of 2.5.
//!
//! And hints that an element of such an array is wanted soon.
#![allow(unsafe_code)] // one call of the C library and one instruction, argued below

use bytemuck::Zeroable;

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// An empty vector with room for `capacity` elements. Only a hint more than [`Vec::with_capacity`]: where the kernel
/// cannot or will not follow it, nothing else changes.
pub fn with_capacity<T>(capacity: usize) -> Vec<T> {
    let vec = Vec::with_capacity(capacity);
    advise(vec.as_ptr(), vec.capacity());
    vec
}

/// `n` times the same element.
pub fn filled<T: Clone>(element: T, n: usize) -> Vec<T> {
    let mut vec = with_capacity(n);
    vec.resize(n, element);
    vec
}

/// `n` elements of zeros: pages that the kernel has cleared are not cleared again.
pub fn zeroed<T: Zeroable>(n: usize) -> Vec<T> {
    let vec = bytemuck::zeroed_vec(n);
    advise(vec.as_ptr(), vec.len());
    vec
}

/// The same with more in front, and how many: the others begin on a cache line, and many on a huge page, so that all their
/// pages are huge.
pub fn zeroed_aligned<T: Zeroable>(n: usize) -> (Vec<T>, usize) {
    const LINE_BYTES: usize = 64;
    let alignment = if n * size_of::<T>() < HUGE_PAGE_BYTES { LINE_BYTES } else { HUGE_PAGE_BYTES };
    let most_before = alignment / size_of::<T>();
    let vec: Vec<T> = zeroed(n + most_before);
    let n_before = vec.as_ptr().align_offset(alignment).min(most_before);
    (vec, n_before)
}

/// Calls the element at `index`, which need not be there, into the caches. Nothing else changes.
#[inline(always)]
pub fn prefetch<T>(elements: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see and does not fault, whatever the address. The
    // instruction is part of every x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(elements.as_ptr().wrapping_add(index).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (elements, index);
}

#[cfg(target_os = "linux")]
fn advise<T>(start: *const T, n: usize) {
    const PAGE_BYTES: usize = 4096;
    let size = n * size_of::<T>();
    if size < HUGE_PAGE_BYTES {
        return;
    }
    let first_page = start.cast::<u8>().wrapping_add(start.cast::<u8>().align_offset(PAGE_BYTES));
    let skipped = first_page as usize - start as usize;
    // SAFETY: MADV_HUGEPAGE changes how the kernel backs a range of addresses, never what can be read there. The range
    // lies inside one allocation of the caller; if it did not, the call would return an error, which is not looked at
    // because a hint that is not taken costs nothing but speed.
    unsafe {
        libc::madvise(first_page.cast_mut().cast(), size - skipped, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_start: *const T, _n: usize) {}
