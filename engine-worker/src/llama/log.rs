//! llama.cpp's own log, sent to `tracing` at debug instead of stderr, and its last complaint, to say why a model could not be loaded.
//!
//! The one place of this crate with `unsafe`: llama.cpp takes its log's receiver as a C function. The crate llama-cpp-2 brings one,
//! but it writes at llama.cpp's own levels (hundreds of lines at info) and panics on a message that has none.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_void},
    sync::Once,
};

use parking_lot::Mutex;

static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

/// Redirects the log, once for the process.
pub(super) fn redirect() {
    static ONCE: Once = Once::new();
    // SAFETY: the receiver is a function that lives as long as the process, and it ignores the user data, which is null.
    ONCE.call_once(|| unsafe { llama_cpp_sys_2::llama_log_set(Some(receive), std::ptr::null_mut()) });
}

/// The last error that llama.cpp logged, which is forgotten thereby.
pub(super) fn last_error() -> String {
    std::mem::take(&mut LAST_ERROR.lock())
}

extern "C" fn receive(level: llama_cpp_sys_2::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends with a zero and lives until this returns.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim();
    if text.is_empty() || text == "." {
        return;
    }
    if level == llama_cpp_sys_2::GGML_LOG_LEVEL_ERROR {
        text.clone_into(&mut LAST_ERROR.lock());
    }
    tracing::debug!(target: "llama.cpp", "{text}");
}
