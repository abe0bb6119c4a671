# Files that are not regular: FIFOs, devices, sockets.
mkfifo fifo
(echo through > fifo) &
same "$(cat fifo)" through
wait
same "$(stat -c %F fifo)" fifo
mknod null c 1 3
drop_caches
echo away > null
same "$(stat -c '%F %t %T' null)" 'character special file 1 3'
same "$(cat null)" ''
