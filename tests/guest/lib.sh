# Makes the guest forget what it has cached, so that what follows comes from the host.
drop_caches() { sync; echo 3 > /proc/sys/vm/drop_caches; }
# Fails unless two strings are equal; the trace shows both.
same() { [ "$1" = "$2" ]; }
# Succeeds when a command fails.
fails() { if "$@"; then return 1; fi; }
