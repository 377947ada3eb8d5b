//! Gives the shared library its soname: the number changes when programs must be compiled anew (`docs/c.md`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    if is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmmu_notifier.so.0");
        // See `keep_thread_locals_near!`.
        if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
            println!("cargo::rustc-cdylib-link-arg=-Wl,--defsym=__tls_get_addr=mmu_notifier_thread_local");
        }
    }
}
