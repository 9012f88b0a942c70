//! Faults of the model's shells that must be found.

/// A fault that is planted in the shell around the product's functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Planted {
    /// The API server is not told the version that a write was decided on.
    WritesWithoutVersion,
    /// What is saved holds no originals.
    ForgetsOriginals,
    /// What is to be saved is saved when nothing is left to do: after the writes.
    SavesAfterWriting,
    /// A leader that begins decides before its lists are complete: it has no tunings yet.
    DecidesFromHalfALists,
}
