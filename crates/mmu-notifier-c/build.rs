//! Gives the shared library its soname: the number changes when programs must be compiled anew (`docs/c.md`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmmu_notifier.so.0");
    }
}
