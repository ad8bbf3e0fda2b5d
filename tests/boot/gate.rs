//! One holder a seat: who wants a held seat waits, and says for whom.
