//! Builders and proptest strategies.
