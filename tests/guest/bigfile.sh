# 50 MB written, read back from the host and hashed.
seq 1 7000000 | head -c 52428800 > big
same "$(stat -c %s big)" 52428800
sum=$(sha256sum < big)
drop_caches
same "$(sha256sum < big)" "$sum"
# And what the same generator gives without a file in between.
same "$(seq 1 7000000 | head -c 52428800 | sha256sum)" "$sum"
cp big copy
rm big
drop_caches
same "$(sha256sum < copy)" "$sum"
truncate -s 1000 copy
same "$(wc -c < copy)" 1000
