//! What eats a machine: each bounded here only by what the sandbox allows.

use std::io::Write as _;

use crate::raw::{self, Word};
use crate::{Answer, Arguments, Attempt, Refused, look_up};

const TABLE: &[(&str, Attempt)] = &[
    ("allocate", allocate),
    ("flood", flood),
    ("threads", threads),
    ("files", files),
    ("fill", fill),
    ("watchers", watchers),
    ("terminals", terminals),
    ("timers", timers),
    ("locked", locked),
];

pub(crate) fn find(name: &str) -> Option<Attempt> {
    look_up(TABLE, name)
}

const MIB: usize = 1024 * 1024;

/// Touches so many MiB and holds them.
fn allocate(arguments: &Arguments) -> Answer {
    let mebibytes: usize = arguments.number(0)?;
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        let mut block: Vec<u8> = Vec::new();
        block.try_reserve_exact(MIB).map_err(|_| Refused::Errno(rustix::io::Errno::NOMEM.raw_os_error()))?;
        block.resize(MIB, 1);
        held.push(block);
    }
    Ok(held.len().to_string())
}

/// Writes so many MiB to standard output, without a line's end.
fn flood(arguments: &Arguments) -> Answer {
    let mebibytes: usize = arguments.number(0)?;
    let block = vec![b'x'; MIB];
    let mut out = std::io::stdout().lock();
    for _ in 0..mebibytes {
        out.write_all(&block)?;
    }
    Ok(String::new())
}

/// Starts so many threads that live at once.
fn threads(arguments: &Arguments) -> Answer {
    let wanted: usize = arguments.number(0)?;
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(wanted + 1));
    let mut started = Vec::new();
    for _ in 0..wanted {
        let barrier = std::sync::Arc::clone(&barrier);
        let made = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            barrier.wait();
        });
        started.push(made?);
    }
    barrier.wait();
    for thread in started {
        thread.join().map_err(|_| Refused::NotSo("a thread died".to_owned()))?;
    }
    Ok(wanted.to_string())
}

/// Opens so many descriptors at once.
fn files(arguments: &Arguments) -> Answer {
    let wanted: usize = arguments.number(0)?;
    let mut held = Vec::new();
    for _ in 0..wanted {
        held.push(std::fs::File::open("/dev/null")?);
    }
    Ok(held.len().to_string())
}

/// Writes so many MiB to a file.
fn fill(arguments: &Arguments) -> Answer {
    let mebibytes: usize = arguments.number(1)?;
    let block = vec![b'x'; MIB];
    let mut file = std::fs::File::create(arguments.text(0)?)?;
    for _ in 0..mebibytes {
        file.write_all(&block)?;
    }
    Ok(String::new())
}

/// Holds so many inotify instances at once.
fn watchers(arguments: &Arguments) -> Answer {
    let wanted: usize = arguments.number(0)?;
    let mut held = Vec::new();
    for _ in 0..wanted {
        held.push(rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::empty())?);
    }
    Ok(held.len().to_string())
}

/// Holds so many terminals at once.
fn terminals(arguments: &Arguments) -> Answer {
    let wanted: usize = arguments.number(0)?;
    let mut held = Vec::new();
    for _ in 0..wanted {
        held.push(rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)?);
    }
    Ok(held.len().to_string())
}

/// Holds so many timers at once, each of which keeps a signal ready.
fn timers(arguments: &Arguments) -> Answer {
    const TIMER_CREATE: i64 = 222;
    let wanted: usize = arguments.number(0)?;
    for _ in 0..wanted {
        let mut words = [Word::Number(1), Word::Number(0), Word::Buffer(vec![0; 8])];
        raw::call(TIMER_CREATE, &mut words).map_err(Refused::Errno)?;
    }
    Ok(wanted.to_string())
}

/// Keeps so many MiB from being paged out.
fn locked(arguments: &Arguments) -> Answer {
    const MLOCK: i64 = 149;
    let mut block = vec![1_u8; arguments.number::<usize>(0)? * MIB];
    let length = block.len() as u64;
    block[0] = 1;
    raw::call(MLOCK, &mut [Word::Buffer(block), Word::Number(length)]).map_err(Refused::Errno)?;
    Ok(String::new())
}
