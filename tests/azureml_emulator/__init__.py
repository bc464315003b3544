"""Tests of the emulator, by raw protocol and by Microsoft's own clients."""
