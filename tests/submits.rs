//! Submits and read-backs of a GPU: the host counts them, dropped ones never pass for results, and few
//! are in flight.

mod common;

use longreach::error::ErrorKind;
use longreach::gpu::{Buffer, Executor, Kind, Recording, Span, WgpuExecutor};

fn words(len: usize) -> Span {
    Buffer::persistent("words", Kind::U32, len).span()
}

fn clear(device: &mut WgpuExecutor, span: &Span) {
    let mut rec = Recording::new();
    rec.clear(span);
    device.run(&rec).unwrap();
}

fn is_dropped<T: std::fmt::Debug>(got: longreach::error::Result<T>) {
    let e = got.expect_err("a submit was dropped");
    assert_eq!(e.kind(), ErrorKind::DeviceLost, "{e}");
    assert!(e.to_string().contains("dropped work"), "{e}");
}

#[test]
fn a_dropped_read_back_is_found() {
    let Some(mut device) = common::software_device() else { return };
    let x = words(64);
    device.write_words(&x, &[7; 64]).unwrap();
    device.drop_next_submit();
    is_dropped(device.read_words(&x));
}

#[test]
fn a_dropped_submit_of_a_timed_run_is_found() {
    let Some(mut device) = common::software_device() else { return };
    let x = words(64);
    let mut rec = Recording::new();
    rec.clear(&x);
    assert_eq!(device.run_timed(&rec).unwrap().len(), 1);
    device.drop_next_submit();
    // Without timestamps nothing is read back while the run is timed.
    is_dropped(device.run_timed(&rec).and_then(|_| device.read_words(&x)));
}

#[test]
fn what_was_read_before_the_drop_is_good() {
    let Some(mut device) = common::software_device() else { return };
    let x = words(64);
    device.write_words(&x, &[7; 64]).unwrap();
    let before = device.start_read_words(&x).unwrap();
    device.drop_next_submit();
    clear(&mut device, &x);
    let after = device.start_read_words(&x).unwrap();
    assert_eq!(before.wait().unwrap(), [7; 64]);
    is_dropped(after.wait());
}

#[test]
fn the_count_of_submits_wraps() {
    let Some(mut device) = common::software_device() else { return };
    let x = words(64);
    device.count_submits_from(u32::MAX - 5);
    for i in 0..6 {
        device.write_words(&x, &[i; 64]).unwrap();
        assert_eq!(device.read_words(&x).unwrap(), [i; 64]);
        clear(&mut device, &x);
        assert_eq!(device.read_words(&x).unwrap(), [0; 64]);
    }
    device.count_submits_from(u32::MAX);
    device.drop_next_submit();
    clear(&mut device, &x);
    is_dropped(device.read_words(&x));
}

#[test]
fn short_recordings_in_a_row_do_not_pile_up() {
    let Some(mut device) = common::software_device() else { return };
    let x = words(1 << 20);
    for _ in 0..40 {
        clear(&mut device, &x);
        assert!((1..=4).contains(&device.n_in_flight()), "{} submits in flight", device.n_in_flight());
    }
    device.wait().unwrap();
    assert_eq!(device.n_in_flight(), 0);
}

#[test]
fn a_long_read_back_is_whole_and_each_piece_is_checked() {
    let Some(mut device) = common::software_device() else { return };
    let piece = 16 << 20; // words of 64 MiB
    let x = words(piece + 1000);
    let pattern: Vec<u32> = (0..x.len as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    device.write_words(&x, &pattern).unwrap();
    assert!(device.read_words(&x).unwrap() == pattern);
    let end = x.buffer.slice(64, piece + 900);
    assert!(device.read_words(&end).unwrap() == pattern[64..piece + 964]);
    let started = device.start_read_words(&x).unwrap();
    clear(&mut device, &x);
    assert!(started.wait().unwrap() == pattern, "as it was when the read started");
    device.drop_next_submit();
    is_dropped(device.read_words(&x));
}
