//! The threads of torch's own pool, for parts of work too short for threads of ours.
//!
//! torch computes by GNU's OpenMP, whose threads spin for some milliseconds after each operation for the next one. A
//! thread of ours would have to be started (0.1 ms) and to share a core with one of them.

#![allow(unsafe_code)] // a library that is loaded, asked for one function by its name

use std::ffi::{c_uint, c_void};
use std::path::Path;
use std::sync::OnceLock;

/// `GOMP_parallel(body, data, threads, flags)`: what the compiler makes of a parallel region. The calling thread and
/// `threads - 1` others call the body with the data, and it returns when all of them have.
type Parallel = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

static PARALLEL: OnceLock<Option<Parallel>> = OnceLock::new();

/// From now on [`run`] takes the threads of the OpenMP at `library`, if the process has loaded that.
pub fn adopt(library: &Path) -> bool {
    PARALLEL.get_or_init(|| find(library)).is_some()
}

fn find(library: &Path) -> Option<Parallel> {
    let found = super::loaded::function(library, c"GOMP_parallel")?;
    // SAFETY: a function of that name has these parameters: they are of the compiler's interface, which does not change.
    Some(unsafe { std::mem::transmute::<*mut c_void, Parallel>(found) })
}

/// Has `body` called by up to `n_threads` threads at once, this one included. Returns false, and does nothing, where no
/// pool was adopted.
pub fn run(n_threads: usize, body: &(dyn Fn() + Sync)) -> bool {
    unsafe extern "C" fn enter(data: *mut c_void) {
        // SAFETY: it is what is handed over below, borrowed until all threads are through.
        (unsafe { &*data.cast::<&(dyn Fn() + Sync)>() })();
    }
    let Some(&Some(parallel)) = PARALLEL.get() else { return false };
    let Ok(n_threads) = c_uint::try_from(n_threads) else { return false };
    // SAFETY: the body may be called by several threads at once (it is Sync), and outlives the call. A panic in it ends
    // the process, for it may not go through code of C.
    unsafe { parallel(enter, (&raw const body).cast_mut().cast(), n_threads, 0) };
    true
}
