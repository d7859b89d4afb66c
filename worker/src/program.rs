//! What system calls of `sys` take, in the kernel's form: BPF programs, arrays of strings.

use core::ffi::c_char;
use core::ptr;
use std::ffi::CString;

use stockade_protocol::spec::BpfInstruction;

/// A BPF program in the kernel's form.
#[derive(Debug)]
pub(crate) struct Program {
    instructions: Vec<libc::sock_filter>,
    length: u16,
}

impl Program {
    /// `None`: more instructions than a program may have (`BPF_MAXINSNS`, 4096), or none.
    pub(crate) fn new(instructions: &[BpfInstruction]) -> Option<Self> {
        let length = u16::try_from(instructions.len()).ok().filter(|length| (1..=4096).contains(length))?;
        let instructions = instructions
            .iter()
            .map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
            .collect();
        Some(Self { instructions, length })
    }

    /// For a call; valid while `self` is.
    pub(crate) fn as_raw(&self) -> libc::sock_fprog {
        libc::sock_fprog { len: self.length, filter: self.instructions.as_ptr().cast_mut() }
    }
}

/// Files that a tool finds open.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    each: Vec<(u32, Vec<CString>)>,
}

/// One of them, for the child: its number, and the steps that lead there, the first of them a directory's path.
#[derive(Debug)]
pub(crate) struct RawOpening {
    pub(crate) number: u32,
    pub(crate) steps: Vec<*const c_char>,
}

impl Openings {
    /// Another. `steps`: a directory's path, and the names from there on.
    pub(crate) fn add(&mut self, number: u32, steps: Vec<CString>) {
        self.each.push((number, steps));
    }

    /// For calls; valid while `self` is.
    pub(crate) fn as_raw(&self) -> Vec<RawOpening> {
        let pointers = |steps: &Vec<CString>| steps.iter().map(|step| step.as_ptr()).collect();
        self.each
            .iter()
            .map(|(number, steps)| RawOpening { number: *number, steps: pointers(steps) })
            .collect()
    }
}

/// C strings and the null-terminated array that points to them.
#[derive(Debug)]
pub(crate) struct Strings {
    /// For a call; valid while this is.
    pub(crate) pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    pub(crate) fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned }
    }
}
