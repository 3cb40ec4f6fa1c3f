#!/usr/bin/env bash
# Unpacks a real song into a folder and prints its path: "Feelings" by Carlos Viola Iborra, free to
# use, copy and sell, from Debian's package fretsonfire-songs-sectoid. Nothing is installed.
set -euo pipefail
folder=${1:?usage: real_song.sh FOLDER}
mkdir -p "$folder"
cd "$folder"
if [ ! -f feelings.ogg ]; then
  apt-get download --quiet --quiet fretsonfire-songs-sectoid >&2
  dpkg-deb --extract fretsonfire-songs-sectoid_*.deb unpacked
  mv unpacked/usr/share/games/fretsonfire/data/songs/sectoid/Feelings/song.ogg feelings.ogg
  rm -r unpacked fretsonfire-songs-sectoid_*.deb
fi
echo "$PWD/feelings.ogg"
