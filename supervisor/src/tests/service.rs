//! What systemd is told while there is no launcher, and who is told of a reload then.

use std::os::unix::net::UnixDatagram;

use super::stage::{Changes, LONG, Stage};
use crate::serve::Order;

/// systemd's socket, and what it is told.
struct Systemd(UnixDatagram);

impl Systemd {
    /// The next message that isn't about doors.
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).expect("systemd is told nothing");
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if !text.starts_with("FDSTORE") {
                return text;
            }
        }
    }
}

#[test]
fn readiness_waits_for_the_launcher_and_a_reload_before_it_says_nothing_of_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&path).unwrap());
    systemd.0.set_read_timeout(Some(LONG)).unwrap();
    let stage = Stage::new(Changes { notify: Some(path), ..Changes::default() });
    assert_eq!(systemd.hears(), "STATUS=starting, no launcher yet: 0 running, 0 waiting\n");
    // A reload says RELOADING=1 and READY=1 to who waits for it, and here nobody does yet.
    stage.order(Order::Reload);
    let _launcher = stage.launcher();
    assert_eq!(systemd.hears(), "READY=1\nSTATUS=0 running, 0 waiting\n");
    stage.order(Order::Reload);
    assert!(systemd.hears().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(systemd.hears(), "READY=1\n");
}
