//! Tests: which compilers are suitable for BPF, and the commands that follow.

use std::ffi::OsStr;

use super::*;

const NIGHTLY: &str = "\
rustc 1.97.0-nightly (e50aa6fba 2026-05-19)
binary: rustc
host: x86_64-unknown-linux-gnu
release: 1.97.0-nightly
LLVM version: 22.1.4
";

fn rustc(release: &str, llvm: u32) -> Rustc {
    Rustc { release: release.into(), llvm }
}

fn env_of<'a>(command: &'a Command, name: &str) -> Option<Option<&'a str>> {
    let (_, value) = command.get_envs().find(|(key, _)| *key == name)?;
    Some(value.and_then(OsStr::to_str))
}

#[test]
fn release_and_llvm_are_read_from_the_verbose_version() {
    assert_eq!(Rustc::parse(NIGHTLY), Some(rustc("1.97.0-nightly", 22)));
    assert_eq!(Rustc::parse("release: 1.97.0\n"), None);
    assert_eq!(Rustc::parse("release: 1.97.0\nLLVM version: unknown\n"), None);
}

#[test]
fn suitable_compiler_is_accepted() {
    assert_eq!(judge("nightly", Some(NIGHTLY), true, "rust-src"), Ok(rustc("1.97.0-nightly", 22)));
}

#[test]
fn unsuitable_compiler_is_refused_with_the_reason() {
    let refusal = |verbose, has_core| judge("it", verbose, has_core, "rust-src").unwrap_err();
    assert_eq!(refusal(None, true), "it is not installed");
    assert_eq!(refusal(Some(NIGHTLY), false), "it lacks rust-src");
    assert_eq!(
        refusal(Some("release: 1.63.0\nLLVM version: 14.0.6"), true),
        format!("it is 1.63.0, older than the {} needed", env!("CARGO_PKG_RUST_VERSION"))
    );
    assert_eq!(
        refusal(Some("release: 1.99.0\nLLVM version: 23.1.0"), true),
        "it has LLVM 23, and bpf-linker 0.10.4 knows 20 to 22"
    );
}

#[test]
fn missing_compiler_reports_both_reasons_and_a_remedy() {
    assert_eq!(
        no_compiler("rustup's nightly lacks rust-src", "/usr/bin/rustc is not installed"),
        "no compiler for BPF: /usr/bin/rustc is not installed, and rustup's nightly lacks rust-src \
         (`rustup toolchain install nightly --component rust-src` would do too)"
    );
}

#[test]
fn releases_compare_as_numbers() {
    assert!(rustc("1.100.0", 22).is_at_least("1.95"));
    assert!(rustc("1.95.0", 22).is_at_least("1.95"));
    assert!(!rustc("1.9.0", 22).is_at_least("1.95"));
    assert!(!rustc("unknown", 22).is_at_least("1.95"));
}

#[test]
fn nightly_compiles_core_from_source() {
    let build = Compiler::Nightly(rustc("1.97.0-nightly", 22)).cargo_build(Path::new("/l"));
    assert_eq!(command::show(&build), "rustup run nightly cargo build -Z build-std=core");
    assert_eq!(
        env_of(&build, "CARGO_ENCODED_RUSTFLAGS"),
        Some(Some("-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clinker=/l"))
    );
    assert_eq!(env_of(&build, "RUSTC"), Some(None));
    assert_eq!(env_of(&build, "RUSTC_BOOTSTRAP"), None);
}

#[test]
fn distribution_compiler_is_used_by_path_with_bootstrap() {
    let build = Compiler::Distribution(rustc("1.96.0", 22)).cargo_build(Path::new("/l"));
    assert!(command::show(&build).ends_with("cargo build"));
    assert_eq!(env_of(&build, "RUSTC"), Some(Some("/usr/bin/rustc")));
    assert_eq!(env_of(&build, "RUSTC_BOOTSTRAP"), Some(Some("1")));
    assert_eq!(env_of(&build, "RUSTC_WRAPPER"), Some(None));
    assert_eq!(env_of(&build, "RUSTUP_TOOLCHAIN"), Some(None));
}
