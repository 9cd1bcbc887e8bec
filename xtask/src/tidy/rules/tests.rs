//! Tests of each rule: text that passes, and text with a violation.

use super::*;

const PLAN: &str = "proxymatic-user/src/plan/diff.rs";

fn lines(findings: &[Finding]) -> Vec<usize> {
    findings.iter().map(|it| it.line).collect()
}

#[test]
fn module_without_a_doc_line_is_found() {
    assert_eq!(module_doc("//! Job.\nfn main() {}"), None);
    assert_eq!(module_doc("#![no_std]\n#![no_main]\n//! Job."), None);
    assert!(module_doc("// Not a doc.\nfn main() {}").is_some());
    assert!(module_doc("\n\n\n//! Too late.").is_some());
    assert!(module_doc("").is_some());
}

#[test]
fn pure_room_that_names_io_or_a_clock_is_found() {
    for bad in [
        "use tokio::time;",
        "use aya::maps::Array;",
        "std::fs::read(path)",
        "use std::{fs, io}; fs::read(path)",
        "TcpStream::connect(address)",
        "let now = Instant::now();",
        "SystemTime::UNIX_EPOCH",
    ] {
        assert_eq!(lines(&pure_rooms(PLAN, &format!("//! Job.\n{bad}"))), [2], "{bad}");
        assert_eq!(lines(&pure_rooms("proxymatic-user/src/model.rs", bad)), [1], "{bad}");
        assert_eq!(pure_rooms("proxymatic-user/src/agent.rs", bad), [], "{bad}");
    }
}

#[test]
fn pure_room_with_io_in_a_comment_passes() {
    for good in ["// tokio runs this", "let playable = 1;", "fn at(now: Instant)", "use std::net::IpAddr;"] {
        assert_eq!(pure_rooms(PLAN, good), [], "{good}");
    }
}

#[test]
fn room_that_names_a_later_room_is_found() {
    assert_eq!(one_way(PLAN, "use crate::model::Service;\nuse crate::plan::Tables;"), []);
    assert_eq!(lines(&one_way(PLAN, "//! Job.\nuse crate::dataplane::Dataplane;")), [2]);
    assert_eq!(lines(&one_way("proxymatic-user/src/source/mod.rs", "use crate::plan::diff;")), [1]);
    assert_eq!(one_way("proxymatic-user/src/agent.rs", "use crate::{plan, source};"), []);
}

#[test]
fn unsafe_code_outside_the_listed_files_is_found() {
    let code = "//! Job.\nunsafe { read() }";
    assert_eq!(unsafe_code("proxymatic-ebpf/src/hooks/sock_addr.rs", code), []);
    assert_eq!(unsafe_code("proxymatic-ebpf/src/maps.rs", code), []);
    assert_eq!(lines(&unsafe_code("proxymatic-ebpf/src/maps.rs.rs", code)), [2]);
    assert_eq!(lines(&unsafe_code(PLAN, code)), [2]);
    assert_eq!(unsafe_code(PLAN, "#![warn(unsafe_op_in_unsafe_fn)] // no unsafe here"), []);
}

#[test]
fn test_name_of_more_than_60_characters_is_found() {
    let function = |length| format!("fn {}() {{}}\n", "a".repeat(length));
    for attributes in ["#[test]\n", "    #[tokio::test(start_paused = true)]\n#[ignore = \"slow\"]\nasync "] {
        let text = |length| format!("{attributes}{}", function(length));
        assert_eq!(test_names(&text(60)), [], "{attributes}");
        let line = text(61).lines().count();
        assert_eq!(lines(&test_names(&text(61))), [line], "{attributes}");
    }
    assert_eq!(test_names(&function(61)), [], "no test");
    assert_eq!(lines(&test_names(&format!("#[test]\nfn a() {{}}\n#[test]\n{}", function(61)))), [4]);
}

#[test]
fn path_of_a_developers_machine_is_found() {
    let bad = concat!("fine\nFROM=/wo", "rk/main\n`/ro", "ot/.cache`");
    assert_eq!(lines(&developer_paths(bad)), [2, 3]);
    let good = concat!("docs/wo", "rk/a.md https://x.org/ro", "ot/ /workspace /rooted");
    assert_eq!(developer_paths(good), []);
}

#[test]
fn long_file_is_a_note_and_then_an_error() {
    let file = |length| "a\n".repeat(length);
    assert_eq!(long("a.rs", &file(400)), None);
    assert_eq!(long("a.rs", &file(401)).as_deref(), Some("note: a.rs has 401 lines; is it one thing?"));
    assert_eq!(long("Cargo.lock", &file(401)), None);
    assert_eq!(too_long(&file(800)), None);
    assert!(too_long(&file(801)).is_some());
}

#[test]
fn every_place_for_unsafe_code_has_a_reason() {
    assert!(UNSAFE.iter().all(|(_, reason)| !reason.is_empty()));
}
