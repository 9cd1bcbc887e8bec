//! Arbitrary bytes as an event stream: no panic, and the same events wherever the stream is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxymatic_user::source::marathon::sse::Frames;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    let whole = Frames::default().push(&bytes);
    let (mut frames, mut pieces, mut rest) = (Frames::default(), Vec::new(), bytes.as_slice());
    for cut in cuts {
        let (piece, tail) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.extend(frames.push(piece));
        rest = tail;
    }
    pieces.extend(frames.push(rest));
    assert_eq!(whole, pieces);
});
