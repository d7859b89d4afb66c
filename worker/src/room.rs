//! Memory that a parked worker has ready, so that nothing of it is faulted in when its run is waited for.

/// The stack of the child between vfork and exec, which makes system calls only. Made, and its top page touched, while there
/// is time.
#[derive(Debug)]
pub(crate) struct ToolStack(Vec<u128>);

impl ToolStack {
    /// Bytes of it.
    const SIZE: usize = 16 * 1024;

    pub(crate) fn new() -> Self {
        let mut stack = vec![0; Self::SIZE / size_of::<u128>()];
        if let Some(top) = core::hint::black_box(&mut stack).last_mut() {
            *top = 1;
        }
        Self(stack)
    }

    /// Its end, where a stack begins.
    pub(crate) fn top(&mut self) -> *mut u128 {
        self.0.as_mut_ptr_range().end
    }
}
