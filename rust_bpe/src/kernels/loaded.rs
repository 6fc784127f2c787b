//! Functions of libraries that the process has loaded.

#![allow(unsafe_code)] // the system's own way to ask for one by its name

use std::ffi::{CStr, c_void};
use std::path::Path;

/// A function of the library at this path, if the process has loaded that: one that is not there yet is not loaded, none of
/// its code runs.
#[cfg(target_os = "linux")]
pub(super) fn function(library: &Path, name: &CStr) -> Option<*mut c_void> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    let path = CString::new(library.as_os_str().as_bytes()).ok()?;
    // SAFETY: both strings end in a zero.
    let found = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if library.is_null() { library } else { libc::dlsym(library, name.as_ptr()) }
    };
    (!found.is_null()).then_some(found)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn function(_: &Path, _: &CStr) -> Option<*mut c_void> {
    None
}
