//! Keeps the library's thread-locals near: see `keep_thread_locals_near!`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--defsym=__tls_get_addr=mmu_notifier_thread_local");
    }
}
