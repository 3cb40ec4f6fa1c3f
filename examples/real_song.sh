#!/usr/bin/env bash
# Unpacks a real song into a folder and prints its path. Nothing is installed.
#   feelings  "Feelings" by Carlos Viola Iborra, instrumental, free to use, copy and sell
#   farewell  "Farewell" from the game M.A.R.S., with vocals, CC-BY-SA-3.0 (68 MB)
#   orphanage "Orphanage" from the same game and package
set -euo pipefail
folder=${1:?usage: real_song.sh FOLDER [feelings|farewell|orphanage]}
name=${2:-feelings}
case $name in
  feelings) package=fretsonfire-songs-sectoid file=fretsonfire/data/songs/sectoid/Feelings/song.ogg ;;
  farewell) package=marsshooter-data file=marsshooter/audio/music/10_farewell.ogg ;;
  orphanage) package=marsshooter-data file=marsshooter/audio/music/02_orphanage.ogg ;;
  *) echo "real_song.sh: the song must be feelings, farewell or orphanage; got $name" >&2; exit 2 ;;
esac
mkdir -p "$folder"
cd "$folder"
if [ ! -f "$name.ogg" ]; then
  apt-get download --quiet --quiet "$package" >&2
  dpkg-deb --extract "$package"_*.deb unpacked
  mv "unpacked/usr/share/games/$file" "$name.ogg"
  rm -r unpacked "$package"_*.deb
fi
echo "$PWD/$name.ogg"
