# Renames, above all the ones that replace something.
echo old > target
echo new > source
exec 5< target
mv -f source target
fails [ -e source ]
same "$(cat target)" new
# Whoever had the replaced file open keeps it.
same "$(cat <&5)" old
exec 5<&-

mkdir -p full/inside empty other
fails mv -T other full
mv -T other empty
fails [ -e other ]
mv full/inside empty/moved
same "$(ls empty)" moved
fails mv empty empty/moved/below

# A moved directory takes what is in it along, under open handles too.
mkdir -p tree/sub
echo leaf > tree/sub/leaf
exec 5< tree/sub/leaf
mv tree plant
same "$(cat <&5)" leaf
exec 5<&-
drop_caches
same "$(cat plant/sub/leaf)" leaf
same "$(cat target)" new

# A name that belonged to the image can be taken over and given back.
cp -p /etc/hostname keep
echo stranger > /etc/hostname.new
mv /etc/hostname.new /etc/hostname
drop_caches
same "$(cat /etc/hostname)" stranger
mv keep /etc/hostname
drop_caches
same "$(cat /etc/hostname)" env86

# Two hard links of one file: POSIX says that nothing happens.
echo both > x
ln x y
i=0
while [ $i -lt 100 ]; do
    echo $i > z.tmp
    mv z.tmp z
    same "$(cat z)" $i
    i=$((i + 1))
done
