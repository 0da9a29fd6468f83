//! The stand-ins, seen from outside.
