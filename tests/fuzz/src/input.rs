//! Arbitrary bytes as a source of choices: whatever is left runs out as zeros.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `n`, which is at most 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// One of these.
    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// The next bytes, as many as there are.
    pub(crate) fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece whose length comes first, in one byte.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let n = self.byte().into();
        self.bytes(n)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// Any number; those at the ends and near `about` are likelier.
    pub(crate) fn number(&mut self, about: u64) -> u64 {
        let near = i64::from(self.byte() as i8);
        match near {
            -128..=-100 => u64::MAX.wrapping_add_signed(near + 100),
            -99..=-90 => (1u64 << 48).wrapping_add_signed(near + 95),
            -89..=-80 => u64::from_be_bytes(self.array()),
            -79..=-70 => near.unsigned_abs() - 70,
            near => about.wrapping_add_signed(near),
        }
    }
}
