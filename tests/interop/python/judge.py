"""PyJWT and joserfc as judges: for each token of a line's list, null where it is accepted, else why not."""

import json
import sys
import warnings

import jwt
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

warnings.simplefilter("ignore")


def by_pyjwt(request):
    keys = {key.key_id: key.key for key in jwt.PyJWKSet.from_dict(request["jwks"]).keys}

    def judge(token):
        kid = jwt.get_unverified_header(token).get("kid")
        if kid is None and len(keys) == 1:
            [key] = keys.values()
        else:
            key = keys[kid]
        jwt.decode(
            token,
            key,
            algorithms=request["algorithms"],
            audience=request["audience"],
            issuer=request["issuer"],
            leeway=request["leeway"],
            options={"require": ["exp", "aud", "iss", "sub"]},
        )

    return judge


def by_joserfc(request):
    keys = KeySet.import_key_set(request["jwks"])
    registry = joserfc_jwt.JWTClaimsRegistry(
        leeway=request["leeway"],
        iss={"essential": True, "value": request["issuer"]},
        aud={"essential": True, "values": request["audience"]},
        sub={"essential": True},
        exp={"essential": True},
    )

    def judge(token):
        decoded = joserfc_jwt.decode(token, keys, algorithms=request["algorithms"])
        registry.validate(decoded.claims)

    return judge


JUDGES = {"pyjwt": by_pyjwt, "joserfc": by_joserfc}

for line in sys.stdin:
    request = json.loads(line)
    judge = JUDGES[request["ask"]](request)
    answers = []
    for token in request["tokens"]:
        try:
            judge(token)
            answers.append(None)
        except Exception as error:  # whatever a library says of a token is a no
            answers.append(type(error).__name__)
    print(json.dumps({"ok": answers}), flush=True)
