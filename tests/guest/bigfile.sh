# 50 MB written, hashed on its way, and again when it comes back from the host.
seq 1 7000000 | head -c 52428800 | tee big | sha256sum > written
same "$(stat -c %s big)" 52428800
drop_caches
sha256sum < big > read
cmp written read
cp big copy
drop_caches
cmp big copy
rm big
truncate -s 1000 copy
same "$(wc -c < copy)" 1000
