"""The few requests that training loops send all the time, on a shorter way than the others."""
